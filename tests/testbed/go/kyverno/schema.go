package main

import (
	"sort"
	"strings"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// field says how a list merges, and which type is behind a field.
type field struct {
	Type  string   `json:"type,omitempty"`
	Merge bool     `json:"merge,omitempty"`
	Keys  []string `json:"keys,omitempty"`
}

type schemas struct {
	Kinds map[string]string           `json:"kinds"`
	Types map[string]map[string]field `json:"types"`
}

// mergeSchema is what the strategic merge knows of built-in kinds: `kinds` gives an
// apiVersion/kind its type, `types` each type its fields.
func mergeSchema() schemas {
	openapi.SchemaForResourceType(yaml.TypeMeta{APIVersion: "v1", Kind: "Pod"})
	found := schemas{Kinds: map[string]string{}, Types: map[string]map[string]field{}}
	for name, definition := range openapi.Schema().Definitions {
		fields := map[string]field{}
		for key, property := range definition.Properties {
			if one := fieldOf(property); one.Type != "" || one.Merge {
				fields[key] = one
			}
		}
		found.Types[name] = fields
		for _, kind := range kindsOf(definition) {
			found.Kinds[kind] = name
		}
	}
	return found
}

func fieldOf(property spec.Schema) field {
	one := field{Type: typeOf(property)}
	if property.Items != nil && property.Items.Schema != nil {
		one.Type = typeOf(*property.Items.Schema)
	}
	if property.AdditionalProperties != nil && property.AdditionalProperties.Schema != nil {
		one.Type = ""
	}
	strategy, keys := (&openapi.ResourceSchema{Schema: &property}).PatchStrategyAndKeyList()
	one.Merge = strings.Contains(strategy, "merge")
	if one.Merge {
		one.Keys = keys
	}
	return one
}

func typeOf(property spec.Schema) string {
	path := property.Ref.String()
	return path[strings.LastIndex(path, "/")+1:]
}

func kindsOf(definition spec.Schema) []string {
	var found []string
	listed, _ := definition.Extensions["x-kubernetes-group-version-kind"].([]any)
	for _, one := range listed {
		parts, ok := one.(map[string]any)
		if !ok {
			continue
		}
		group, _ := parts["group"].(string)
		version, _ := parts["version"].(string)
		kind, _ := parts["kind"].(string)
		if group != "" {
			version = group + "/" + version
		}
		found = append(found, version+"/"+kind)
	}
	sort.Strings(found)
	return found
}
