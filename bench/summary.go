package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// topRows is how many functions and places a list of the summary has.
const topRows = 25

// summary is what the profiles of a work say, as Markdown.
func (p *profiles) summary(ctx context.Context) (string, error) {
	cpu, err := tracesOf(ctx, "-unit=ns", p.cpu)
	if err != nil {
		return "", err
	}
	count, err := tracesOf(ctx, "-lines", "-sample_index=alloc_objects", "-base", p.before, p.allocs)
	if err != nil {
		return "", err
	}
	size, err := tracesOf(ctx, "-lines", "-sample_index=alloc_space", "-unit=B", "-base", p.before, p.allocs)
	if err != nil {
		return "", err
	}
	// Taking a profile allocates too.
	own := func(t trace) bool { return slices.ContainsFunc(t.stack, ofProfiler) }
	count, size = slices.DeleteFunc(count, own), slices.DeleteFunc(size, own)
	var b strings.Builder
	var time, memory []request
	each := 1 / float64(max(p.timed.Requests, 1))
	for _, t := range cpu {
		time = append(time, request{t.stack, costs{time: t.value / 1000 * each}})
	}
	each = 1 / float64(max(p.counted.Requests, 1))
	for _, t := range count {
		memory = append(memory, request{t.stack, costs{objects: t.value * each}})
	}
	for _, t := range size {
		memory = append(memory, request{t.stack, costs{bytes: t.value * each}})
	}
	fmt.Fprintf(&b, "## %s %s\n\nTime is of %d requests in %.1f s, %s µs of CPU each by the kernel's count; allocations are of %d others.\n\n",
		p.work.id, p.work.title, p.timed.Requests, p.timed.Seconds, figure(perRequest(p.timed)), p.counted.Requests)
	areaTable(&b, slices.Concat(time, memory))
	for _, list := range []struct{ title, order string }{{"by their own time", "-flat"}, {"with all they call", "-cum"}} {
		text, err := pprof(ctx, "-top", list.order, fmt.Sprintf("-nodecount=%d", topRows), p.cpu)
		if err != nil {
			return "", err
		}
		// What comes before is the name of the file and such.
		fmt.Fprintf(&b, "\nFunctions %s:\n\n```\n%s```\n", list.title, text[max(0, bytes.Index(text, []byte("Showing nodes"))):])
	}
	siteTable(&b, memory)
	b.WriteString("\n")
	return b.String(), nil
}

func ofProfiler(frame string) bool {
	return strings.HasPrefix(frame, "runtime/pprof.") || strings.HasPrefix(frame, "net/http/pprof.")
}

// costs are what one request takes.
type costs struct{ time, objects, bytes float64 }

func (c *costs) add(o *costs) {
	c.time, c.objects, c.bytes = c.time+o.time, c.objects+o.objects, c.bytes+o.bytes
}

// request are the costs of one request by stack.
type request struct {
	stack []string
	costs
}

// by adds up by a part of the stack, and returns the parts as order has them.
func by(all []request, part func(stack []string) string, order func(x, y *costs) int) ([]string, map[string]*costs) {
	sums := map[string]*costs{}
	for i := range all {
		name := part(all[i].stack)
		if sums[name] == nil {
			sums[name] = new(costs)
		}
		sums[name].add(&all[i].costs)
	}
	names := slices.SortedFunc(maps.Keys(sums), func(x, y string) int {
		return cmp.Or(order(sums[x], sums[y]), cmp.Compare(x, y))
	})
	return names, sums
}

// areaTable shows what each area takes, the largest first.
func areaTable(b *strings.Builder, all []request) {
	names, sums := by(all, areaOf, func(x, y *costs) int { return cmp.Compare(y.time, x.time) })
	var whole costs
	for _, c := range sums {
		whole.add(c)
	}
	b.WriteString("A sample belongs to the first of its frames, from the leaf, that is in the table of bench/areas.go.\n\n")
	b.WriteString("| area | CPU % | µs a request | allocations a request | bytes a request |\n|---|--:|--:|--:|--:|\n")
	sums["all"] = &whole
	for _, name := range append(names, "all") {
		c := sums[name]
		fmt.Fprintf(b, "| %s | %.1f | %.2f | %.2f | %.0f |\n", name, 100*c.time/max(whole.time, 1e-9), c.time, c.objects, c.bytes)
	}
}

// siteTable shows the lines that allocate most often and the areas that have them
// do it.
func siteTable(b *strings.Builder, all []request) {
	names, sums := by(all, func(stack []string) string {
		name, place, _ := strings.Cut(stack[0], " ")
		return fmt.Sprintf("%s %s | %s", name, path.Base(place), areaOf(stack))
	}, func(x, y *costs) int { return cmp.Compare(y.objects, x.objects) })
	b.WriteString("\nWhere it allocates:\n\n| allocations a request | bytes a request | line | area |\n|--:|--:|---|---|\n")
	for _, name := range names[:min(len(names), topRows)] {
		fmt.Fprintf(b, "| %.2f | %.0f | %s |\n", sums[name].objects, sums[name].bytes, name)
	}
}
