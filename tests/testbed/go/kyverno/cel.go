package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	policiesv1beta1 "github.com/kyverno/api/api/policies.kyverno.io/v1beta1"
	"github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno/apis/v1alpha1"
	"github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno/processor"
	"github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno/store"
	"github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno/variables"
	"github.com/kyverno/kyverno/pkg/cel/libs"
	"github.com/kyverno/kyverno/pkg/cel/policies/gpol/compiler"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
)

// expressed answers an expression as a placeholder of a GeneratingPolicy's template.
func expressed(asked question) (any, error) {
	made, err := json.Marshal(map[string]any{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata":   map[string]any{"name": "answer", "namespace": "default"},
		"answer":     "(( " + asked.Expression + " ))",
	})
	if err != nil {
		return nil, err
	}
	policy := &policiesv1beta1.GeneratingPolicy{ObjectMeta: metav1.ObjectMeta{Name: "asked"}}
	policy.Spec.Generation = []policiesv1beta1.Generation{{
		Template: &policiesv1beta1.GenerationTemplate{
			Value:       string(made),
			Interpolate: policiesv1beta1.InterpolationModeCEL,
		},
	}}
	compiled, refused := compiler.NewCompiler().Compile(policy, nil)
	if len(refused) > 0 {
		return nil, refused.ToAggregate()
	}
	object := &unstructured.Unstructured{Object: asked.Data}
	attributes := admission.NewAttributesRecord(object, nil, object.GroupVersionKind(), object.GetNamespace(),
		object.GetName(), schema.GroupVersionResource{}, "", admission.Create, nil, false, nil)
	request := &admissionv1.AdmissionRequest{Operation: admissionv1.Create, Name: object.GetName(), Namespace: object.GetNamespace()}
	result, err := compiled.Evaluate(context.Background(), attributes, request, nil, libs.NewFakeContextProvider())
	if err != nil {
		return nil, err
	}
	if result == nil || len(result.GeneratedResources) != 1 {
		return nil, errors.New("nothing was generated")
	}
	return result.GeneratedResources[0].Object["answer"], nil
}

// carriedOutInCEL runs a MutatingPolicy or GeneratingPolicy as the command line does; `objects` are
// what targets find, and with `sources` what expressions read.
func carriedOutInCEL(asked policyQuestion, object json.RawMessage) (any, error) {
	var resource unstructured.Unstructured
	if err := resource.UnmarshalJSON(object); err != nil {
		return nil, err
	}
	known := &store.Store{}
	known.SetLocal(true)
	given, err := variables.New(io.Discard, nil, "", "", &v1alpha1.ValuesSpec{})
	if err != nil {
		return nil, err
	}
	given.SetInStore(known)
	around, err := contextFile(asked)
	if err != nil {
		return nil, err
	}
	defer os.Remove(around)
	run := &processor.PolicyProcessor{
		Store:                known,
		Resource:             resource,
		Operation:            asked.Operation,
		Variables:            given,
		UserInfo:             asked.User,
		NamespaceSelectorMap: asked.NamespaceLabels,
		Rc:                   &processor.ResultCounts{},
		ContextPath:          around,
		Out:                  io.Discard,
	}
	for _, target := range asked.Objects {
		run.TargetResources = append(run.TargetResources, &unstructured.Unstructured{Object: target})
	}
	if err := readExpressed(asked.Policy, run); err != nil {
		return nil, err
	}
	responses, err := run.ApplyPoliciesOnResource()
	if err != nil {
		return nil, err
	}
	return outcomeOf(resource, responses), nil
}

func readExpressed(document json.RawMessage, run *processor.PolicyProcessor) error {
	var named struct{ Kind string }
	if err := json.Unmarshal(document, &named); err != nil {
		return err
	}
	switch named.Kind {
	case "MutatingPolicy":
		policy := &policiesv1beta1.MutatingPolicy{}
		run.MutatingPolicies = []policiesv1beta1.MutatingPolicyLike{policy}
		return json.Unmarshal(document, policy)
	case "NamespacedMutatingPolicy":
		policy := &policiesv1beta1.NamespacedMutatingPolicy{}
		run.MutatingPolicies = []policiesv1beta1.MutatingPolicyLike{policy}
		return json.Unmarshal(document, policy)
	case "GeneratingPolicy":
		policy := &policiesv1beta1.GeneratingPolicy{}
		run.GeneratingPolicies = []policiesv1beta1.GeneratingPolicyLike{policy}
		return json.Unmarshal(document, policy)
	}
	policy := &policiesv1beta1.NamespacedGeneratingPolicy{}
	run.GeneratingPolicies = []policiesv1beta1.GeneratingPolicyLike{policy}
	return json.Unmarshal(document, policy)
}

func contextFile(asked policyQuestion) (string, error) {
	resources := []map[string]any{}
	for _, objects := range asked.Sources {
		resources = append(resources, objects...)
	}
	written, err := json.Marshal(map[string]any{
		"apiVersion": "cli.kyverno.io/v1alpha1",
		"kind":       "Context",
		"metadata":   map[string]any{"name": "around"},
		"spec":       map[string]any{"resources": resources},
	})
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp("", "context-*.yaml")
	if err != nil {
		return "", err
	}
	defer file.Close()
	_, err = file.Write(written)
	return file.Name(), err
}
