package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Lookup returns the value of an environment variable, as os.LookupEnv.
type Lookup func(name string) (value string, ok bool)

var (
	reference    = regexp.MustCompile(`\$?\$\{[^}]*\}`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// expand puts environment variables into a value. ${NAME} works anywhere, and
// $${NAME} stands for itself. In a whole value, $NAME is a variable too and a
// leading backslash lets the rest stand as it is. A variable that is not set, or
// empty, is an error that names it.
func expand(value string, whole bool, env Lookup) (string, error) {
	if whole {
		if rest, ok := strings.CutPrefix(value, `\`); ok {
			return rest, nil
		}
		if name, ok := strings.CutPrefix(value, "$"); ok && !strings.HasPrefix(name, "{") && !strings.HasPrefix(name, "$") {
			if !variableName.MatchString(name) {
				// The rest may be the secret itself, so it is not shown.
				return "", errors.New("begins with $, but what follows is not the name of an environment variable: put a backslash before the $ to mean the $ itself")
			}
			return variable(name, env)
		}
	}
	var missing error
	value = reference.ReplaceAllStringFunc(value, func(ref string) string {
		if strings.HasPrefix(ref, "$$") {
			return ref[1:]
		}
		name := ref[2 : len(ref)-1]
		if !variableName.MatchString(name) {
			missing = errors.New("${} must hold the name of an environment variable: write $${ to mean ${ itself")
			return ""
		}
		text, err := variable(name, env)
		if err != nil && missing == nil {
			missing = err
		}
		return text
	})
	return value, missing
}

func variable(name string, env Lookup) (string, error) {
	if value, ok := env(name); ok && value != "" {
		return value, nil
	}
	return "", fmt.Errorf("environment variable %s is not set or empty: set it, or write the value into the file", name)
}
