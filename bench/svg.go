package main

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// plot is lines over two logarithmic axes.
type plot struct {
	title, x, note string
	// number prints values of x, duration those of y, which are microseconds.
	number func(float64) string
	lines  []line
}

type line struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// Sizes of a plot in pixels. The names of the lines stand on the right.
const (
	plotWidth, plotHeight = 760, 440
	plotLeft, plotRight   = 84, 124
	plotTop, plotBottom   = 56, 84
	innerWidth            = plotWidth - plotLeft - plotRight
	innerHeight           = plotHeight - plotTop - plotBottom
	nameGap               = 17 // between two names
)

// colours of the lines, which can be seen on white and on black and told apart by
// the colour-blind; each line has a mark of its own besides.
var colours = []string{"#0a7cc2", "#d55e00", "#009e73", "#cc79a7", "#808080"}

// style is for pages of either colour.
const style = `<style>
.page{fill:#ffffff}.text{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#dde2e7}.frame{stroke:#8c959f}
@media(prefers-color-scheme:dark){.page{fill:#0d1117}.text{fill:#e6edf3}.faint{fill:#9198a1}.grid{stroke:#2c323a}}
</style>
`

// svg draws the plot. Points that are not above zero are left out.
func (p *plot) svg() string {
	x, y := newAxis(innerWidth), newAxis(innerHeight)
	for _, l := range p.lines {
		for _, pt := range l.points {
			x.cover(pt.x)
			y.cover(pt.y)
		}
	}
	x.open()
	y.open()
	steps := y.round()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13" role="img">`+"\n", plotWidth, plotHeight, plotWidth, plotHeight)
	fmt.Fprintf(&b, "<title>%s</title>\n%s", html.EscapeString(p.title), style)
	fmt.Fprintf(&b, `<rect class="page" width="%d" height="%d"/>`+"\n", plotWidth, plotHeight)
	text(&b, "text", plotLeft, 32, "start", 17, p.title)
	text(&b, "text", plotLeft+innerWidth/2, plotTop+innerHeight+48, "middle", 13, p.x+", log scale")
	text(&b, "faint", plotLeft, plotHeight-12, "start", 11, p.note)
	fmt.Fprintf(&b, `<text class="text" transform="translate(20 %d) rotate(-90)" text-anchor="middle">CPU time per request, log scale</text>`+"\n", plotTop+innerHeight/2)
	for _, v := range p.ticks() {
		at := plotLeft + x.at(v)
		fmt.Fprintf(&b, `<path class="grid" d="M%.1f %dv%d"/>`+"\n", at, plotTop, innerHeight)
		text(&b, "text", at, plotTop+innerHeight+23, "middle", 13, p.number(v))
	}
	for _, v := range steps {
		at := plotTop + innerHeight - y.at(v)
		fmt.Fprintf(&b, `<path class="grid" d="M%d %.1fh%d"/>`+"\n", plotLeft, at, innerWidth)
		text(&b, "text", plotLeft-9, at+4.5, "end", 13, duration(v))
	}
	fmt.Fprintf(&b, `<rect class="frame" x="%d" y="%d" width="%d" height="%d" fill="none"/>`+"\n", plotLeft, plotTop, innerWidth, innerHeight)
	var names []name
	for i, l := range slices.Backward(p.lines) { // the first lies on top
		colour := colours[i%len(colours)]
		var path, marks strings.Builder
		n := name{text: l.name, colour: colour}
		for _, pt := range l.points {
			if pt.x <= 0 || pt.y <= 0 {
				continue
			}
			px, py := plotLeft+x.at(pt.x), plotTop+innerHeight-y.at(pt.y)
			command := "L"
			if path.Len() == 0 {
				command = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", command, px, py)
			mark(&marks, i, px, py, colour)
			n.x, n.end, n.at = px, py, py
		}
		if path.Len() == 0 {
			continue
		}
		names = append(names, n)
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n%s", path.String(), colour, marks.String())
	}
	spread(names)
	for _, n := range names {
		const right = plotLeft + innerWidth
		fmt.Fprintf(&b, `<path d="M%.1f %.1fL%d %.1fh6" fill="none" stroke="%s"/>`+"\n", n.x, n.end, right+14, n.at, n.colour)
		text(&b, "text", right+25, n.at+4.5, "start", 13, n.text)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// name is the name of a line: where the line ends and at which height it stands.
type name struct {
	text, colour string
	x, end, at   float64
}

// spread moves names apart that would stand on each other, in the order of the
// ends of their lines and not below the plot.
func spread(names []name) {
	slices.SortStableFunc(names, func(a, b name) int { return cmp.Compare(a.end, b.end) })
	for i := 1; i < len(names); i++ {
		names[i].at = max(names[i].at, names[i-1].at+nameGap)
	}
	lowest := float64(plotTop + innerHeight)
	for i := len(names) - 1; i >= 0; i-- {
		names[i].at = min(names[i].at, lowest)
		lowest = names[i].at - nameGap
	}
}

// ticks are the x values that were measured.
func (p *plot) ticks() (values []float64) {
	for _, l := range p.lines {
		for i, pt := range l.points {
			if i >= len(values) {
				values = append(values, pt.x)
			}
		}
	}
	return values
}

func text(b *strings.Builder, class string, x, y float64, anchor string, size int, s string) {
	fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s" font-size="%d">%s</text>`+"\n", class, x, y, anchor, size, html.EscapeString(s))
}

func mark(b *strings.Builder, kind int, x, y float64, colour string) {
	switch kind % 4 {
	case 0:
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`+"\n", x, y, colour)
	case 1:
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="8" height="8" fill="%s"/>`+"\n", x-4, y-4, colour)
	case 2:
		fmt.Fprintf(b, `<path d="M%.1f %.1fl5 9h-10z" fill="%s"/>`+"\n", x, y-5, colour)
	default:
		fmt.Fprintf(b, `<path d="M%.1f %.1fl5 5l-5 5l-5-5z" fill="%s"/>`+"\n", x, y-5, colour)
	}
}

// axis maps values to pixels by their logarithms.
type axis struct {
	low, high, length float64
}

func newAxis(length float64) *axis { return &axis{math.Inf(1), math.Inf(-1), length} }

func (a *axis) cover(v float64) {
	if v > 0 {
		a.low, a.high = min(a.low, math.Log10(v)), max(a.high, math.Log10(v))
	}
}

// open makes an axis of nothing, or of one value, one that can be drawn.
func (a *axis) open() {
	if math.IsInf(a.low, 0) {
		a.low, a.high = 0, 1
	}
	if a.high-a.low < 1e-9 {
		a.high = a.low + 1
	}
}

// round widens the axis to steps of 1, 2 and 5 times a power of ten, and returns
// those on it.
func (a *axis) round() (steps []float64) {
	const near = 1e-9
	step := func(i int) float64 { return math.Pow(10, math.Floor(float64(i)/3)) * []float64{1, 2, 5}[(i%3+3)%3] }
	first := int(math.Floor(a.low)) * 3
	for math.Log10(step(first+1)) <= a.low+near {
		first++
	}
	for i := first; ; i++ {
		steps = append(steps, step(i))
		if math.Log10(step(i)) >= a.high-near && i > first {
			a.low, a.high = math.Log10(step(first)), math.Log10(step(i))
			return steps
		}
	}
}

func (a *axis) at(v float64) float64 { return (math.Log10(v) - a.low) / (a.high - a.low) * a.length }

// duration prints microseconds.
func duration(us float64) string {
	switch {
	case us >= 1e6:
		return fmt.Sprintf("%g s", us/1e6)
	case us >= 1e3:
		return fmt.Sprintf("%g ms", us/1e3)
	}
	return fmt.Sprintf("%g µs", us)
}

func number(v float64) string { return fmt.Sprintf("%.0f", v) }

// size prints bytes.
func size(v float64) string {
	switch {
	case v >= 1<<20:
		return fmt.Sprintf("%.0f MiB", v/(1<<20))
	case v >= 1<<10:
		return fmt.Sprintf("%.0f KiB", v/(1<<10))
	}
	return fmt.Sprintf("%.0f B", v)
}
