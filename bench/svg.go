package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// plot is lines over two logarithmic axes.
type plot struct {
	title, x, y string
	lines       []line
}

type line struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// Sizes of a plot in pixels.
const (
	plotWidth, plotHeight = 720, 440
	plotLeft, plotRight   = 70, 20
	plotTop, plotBottom   = 70, 60
	innerWidth            = plotWidth - plotLeft - plotRight
	innerHeight           = plotHeight - plotTop - plotBottom
	legendTop, legendStep = 54, 130
)

// colours of the lines, told apart by the colour-blind too; each line has a mark
// of its own besides.
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#595959"}

// svg draws the plot. Points that are not above zero are left out.
func (p *plot) svg() string {
	x, y := newAxis(innerWidth), newAxis(innerHeight)
	for _, l := range p.lines {
		for _, pt := range l.points {
			x.cover(pt.x)
			y.cover(pt.y)
		}
	}
	y.low, y.high = math.Floor(y.low), math.Ceil(y.high)
	x.open()
	y.open()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" role="img">`+"\n", plotWidth, plotHeight, plotWidth, plotHeight)
	fmt.Fprintf(&b, "<title>%s</title>\n", html.EscapeString(p.title))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", plotWidth, plotHeight)
	text(&b, plotLeft, 28, "start", 16, p.title)
	text(&b, plotLeft+innerWidth/2, plotHeight-14, "middle", 12, p.x)
	fmt.Fprintf(&b, `<text transform="translate(18 %d) rotate(-90)" text-anchor="middle">%s</text>`+"\n", plotTop+innerHeight/2, html.EscapeString(p.y))
	for _, v := range p.ticks() {
		at := plotLeft + x.at(v)
		fmt.Fprintf(&b, `<path d="M%.1f %dv%d" stroke="#e0e0e0"/>`+"\n", at, plotTop, innerHeight)
		text(&b, at, plotTop+innerHeight+18, "middle", 12, short(v))
	}
	for e := y.low; e <= y.high; e++ {
		for _, m := range []float64{1, 2, 5} {
			v := m * math.Pow(10, e)
			if math.Log10(v) > y.high+1e-9 {
				break
			}
			at := plotTop + innerHeight - y.at(v)
			fmt.Fprintf(&b, `<path d="M%d %.1fh%d" stroke="#e0e0e0"/>`+"\n", plotLeft, at, innerWidth)
			text(&b, plotLeft-8, at+4, "end", 12, short(v))
		}
	}
	fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#808080"/>`+"\n", plotLeft, plotTop, innerWidth, innerHeight)
	for i, l := range p.lines {
		colour := colours[i%len(colours)]
		var path strings.Builder
		var marks strings.Builder
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
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n%s", path.String(), colour, marks.String())
		at := float64(plotLeft + i*legendStep)
		fmt.Fprintf(&b, `<path d="M%.1f %dh24" stroke="%s" stroke-width="2"/>`+"\n", at, legendTop-4, colour)
		mark(&b, i, at+12, legendTop-4, colour)
		text(&b, at+30, legendTop, "start", 12, l.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
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

func text(b *strings.Builder, x, y float64, anchor string, size int, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d">%s</text>`+"\n", x, y, anchor, size, html.EscapeString(s))
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

func (a *axis) at(v float64) float64 { return (math.Log10(v) - a.low) / (a.high - a.low) * a.length }

// short prints a number as people write it: 64Ki, 20k.
func short(v float64) string {
	n := int64(v)
	switch {
	case v != float64(n):
		return fmt.Sprintf("%g", v)
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%dMi", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0 && n%1000 != 0:
		return fmt.Sprintf("%dKi", n>>10)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}
