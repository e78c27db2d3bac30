// kyverno answers questions with Kyverno's own engine: one JSON object a line in, one out.
//
//	query      expression, data                    a JMESPath expression on data
//	substitute template, data                      variables and references of a template
//	condition  key, operator, value, data          a precondition
//	merge      patch, object                       patchStrategicMerge with its anchors
//	jsonpatch  patches (text), object              patchesJson6902
//	schema                                         how lists of built-in kinds merge
//	policy     policy, object, operation, user, objects, sources, values
//	cel        expression, data (the object)       a CEL expression
//	celpolicy  policy, object, operation, user, objects, sources
//
// An answer is {"value": ...}, or {"error": "..."} where the engine gives an error or panics.
// `data` is what expressions start from; numbers are read as the engine reads a request.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/go-logr/logr"
	kyvernov1 "github.com/kyverno/kyverno/api/kyverno/v1"
	"github.com/kyverno/kyverno/pkg/config"
	enginecontext "github.com/kyverno/kyverno/pkg/engine/context"
	"github.com/kyverno/kyverno/pkg/engine/jmespath"
	"github.com/kyverno/kyverno/pkg/engine/mutate/patch"
	"github.com/kyverno/kyverno/pkg/engine/variables"
)

type question struct {
	Op         string          `json:"op"`
	Expression string          `json:"expression"`
	Data       map[string]any  `json:"data"`
	Template   any             `json:"template"`
	Key        json.RawMessage `json:"key"`
	Operator   string          `json:"operator"`
	Value      json.RawMessage `json:"value"`
	Patch      any             `json:"patch"`
	Patches    string          `json:"patches"`
	Object     json.RawMessage `json:"object"`
	policyQuestion
}

type answer struct {
	Value any    `json:"value"`
	Error string `json:"error,omitempty"`
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 1<<26)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for in.Scan() {
		var asked question
		if err := json.Unmarshal(in.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, "no question:", err)
			os.Exit(1)
		}
		value, err := safely(asked)
		given := answer{Value: value}
		if err != nil {
			given = answer{Error: err.Error()}
		}
		if err := out.Encode(given); err != nil {
			_ = out.Encode(answer{Error: err.Error()})
		}
	}
}

func safely(asked question) (value any, err error) {
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("panic: %v", problem)
		}
	}()
	switch asked.Op {
	case "query":
		return scope(asked).Query(asked.Expression)
	case "substitute":
		return substituted(asked)
	case "condition":
		return condition(asked)
	case "merge":
		return patched(patch.NewPatchStrategicMerge(asked.Patch), asked.Object)
	case "jsonpatch":
		return patched(patch.NewPatchesJSON6902(asked.Patches), asked.Object)
	case "schema":
		return mergeSchema(), nil
	case "policy":
		return carriedOut(asked.policyQuestion, asked.Object)
	case "cel":
		return expressed(asked)
	case "celpolicy":
		return carriedOutInCEL(asked.policyQuestion, asked.Object)
	}
	return nil, fmt.Errorf("no such op: %s", asked.Op)
}

func scope(asked question) enginecontext.Interface {
	if asked.Data == nil {
		asked.Data = map[string]any{}
	}
	return enginecontext.NewContextFromRaw(jmespath.New(config.NewDefaultConfiguration(false)), asked.Data)
}

// A template stands where it stands in a rule, so that `@` and references know their place.
func substituted(asked question) (any, error) {
	rule := map[string]any{"mutate": map[string]any{"patchStrategicMerge": asked.Template}}
	result, err := variables.SubstituteAll(logr.Discard(), scope(asked), rule)
	if err != nil {
		return nil, err
	}
	return result.(map[string]any)["mutate"].(map[string]any)["patchStrategicMerge"], nil
}

func condition(asked question) (any, error) {
	spelled, err := json.Marshal(map[string]any{"key": asked.Key, "operator": asked.Operator, "value": asked.Value})
	if err != nil {
		return nil, err
	}
	var read kyvernov1.Condition
	if err := json.Unmarshal(spelled, &read); err != nil {
		return nil, err
	}
	holds, _, err := variables.Evaluate(logr.Discard(), scope(asked), read)
	return holds, err
}

func patched(patcher patch.Patcher, object json.RawMessage) (any, error) {
	after, err := patcher.Patch(logr.Discard(), object)
	if err != nil {
		return nil, err
	}
	var value any
	err = json.Unmarshal(after, &value)
	return value, err
}
