package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// fetch returns what a URL answers, over a connection of its own.
func fetch(url string) ([]byte, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: HTTP status %d", url, resp.StatusCode)
	}
	return io.ReadAll(resp.Body)
}

// goroutines is how many the gateway says that it has, 0 when it is not to be
// asked.
func (o *options) goroutines() (int, error) {
	if o.metrics == "" {
		return 0, nil
	}
	text, err := fetch("http://" + o.metrics + "/metrics")
	if err != nil {
		return 0, fmt.Errorf("goroutines of the gateway: %w", err)
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("go_goroutines ")); ok {
			return strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
	return 0, fmt.Errorf("goroutines of the gateway: there is no go_goroutines at %s", o.metrics)
}
