package main

import (
	"encoding/json"
	"io"
	"os"
	"strings"

	kyvernov1 "github.com/kyverno/kyverno/api/kyverno/v1"
	kyvernov2 "github.com/kyverno/kyverno/api/kyverno/v2"
	"github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno/apis/v1alpha1"
	"github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno/processor"
	"github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno/store"
	"github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno/variables"
	"github.com/kyverno/kyverno/pkg/clients/dclient"
	engineapi "github.com/kyverno/kyverno/pkg/engine/api"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

type policyQuestion struct {
	Policy          json.RawMessage              `json:"policy"`
	Operation       string                       `json:"operation"`
	User            *kyvernov2.RequestInfo       `json:"user"`
	Objects         []map[string]any             `json:"objects"`
	Sources         map[string][]map[string]any  `json:"sources"`
	Values          map[string]any               `json:"values"`
	NamespaceLabels map[string]map[string]string `json:"namespaceLabels"`
}

type outcome struct {
	Rules     []ruleOutcome    `json:"rules"`
	Object    map[string]any   `json:"object"`
	Targets   []map[string]any `json:"targets"`
	Generated []map[string]any `json:"generated"`
}

type ruleOutcome struct {
	Rule    string `json:"rule"`
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
}

// carriedOut runs one policy on one object as the command line does; `sources` are what a rule
// clones, by the rule's name, `objects` what targets find.
func carriedOut(asked policyQuestion, object json.RawMessage) (any, error) {
	policy, err := readPolicy(asked.Policy)
	if err != nil {
		return nil, err
	}
	var resource unstructured.Unstructured
	if err := resource.UnmarshalJSON(object); err != nil {
		return nil, err
	}
	run, clean, err := newRun(asked, policy, resource)
	if err != nil {
		return nil, err
	}
	defer clean()
	responses, err := run.ApplyPoliciesOnResource()
	if err != nil {
		return nil, err
	}
	return outcomeOf(resource, responses), nil
}

func readPolicy(document json.RawMessage) (kyvernov1.PolicyInterface, error) {
	var named struct{ Kind string }
	if err := json.Unmarshal(document, &named); err != nil {
		return nil, err
	}
	if named.Kind == "Policy" {
		policy := &kyvernov1.Policy{}
		return policy, json.Unmarshal(document, policy)
	}
	policy := &kyvernov1.ClusterPolicy{}
	return policy, json.Unmarshal(document, policy)
}

func newRun(asked policyQuestion, policy kyvernov1.PolicyInterface, resource unstructured.Unstructured) (*processor.PolicyProcessor, func(), error) {
	known := &store.Store{}
	known.SetLocal(true)
	values := &v1alpha1.ValuesSpec{}
	if asked.Values != nil {
		values.GlobalValues = asked.Values
	}
	for name, labels := range asked.NamespaceLabels {
		values.NamespaceSelectors = append(values.NamespaceSelectors, v1alpha1.NamespaceSelector{Name: name, Labels: labels})
	}
	given, err := variables.New(io.Discard, nil, "", "", values)
	if err != nil {
		return nil, nil, err
	}
	given.SetInStore(known)
	client, err := clientOf(asked.Objects)
	if err != nil {
		return nil, nil, err
	}
	files, clean, err := sourceFiles(policy, asked.Sources)
	return &processor.PolicyProcessor{
		Store:                     known,
		Policies:                  []kyvernov1.PolicyInterface{policy},
		Resource:                  resource,
		Operation:                 asked.Operation,
		Variables:                 given,
		UserInfo:                  asked.User,
		NamespaceSelectorMap:      asked.NamespaceLabels,
		Rc:                        &processor.ResultCounts{},
		RuleToCloneSourceResource: files,
		Client:                    client,
		Out:                       io.Discard,
	}, clean, err
}

func clientOf(objects []map[string]any) (dclient.Interface, error) {
	var there []runtime.Object
	lists := map[schema.GroupVersionResource]string{}
	var resources []schema.GroupVersionResource
	for _, object := range objects {
		one := &unstructured.Unstructured{Object: object}
		kind := one.GroupVersionKind()
		plural := kind.GroupVersion().WithResource(strings.ToLower(kind.Kind) + "s")
		if _, found := lists[plural]; !found {
			resources = append(resources, plural)
		}
		lists[plural] = kind.Kind + "List"
		there = append(there, one)
	}
	client, err := dclient.NewFakeClient(runtime.NewScheme(), lists, there...)
	if err != nil {
		return nil, err
	}
	client.SetDiscovery(dclient.NewFakeDiscoveryClient(resources))
	return client, nil
}

func sourceFiles(policy kyvernov1.PolicyInterface, sources map[string][]map[string]any) (map[string]string, func(), error) {
	var made []string
	clean := func() {
		for _, path := range made {
			_ = os.Remove(path)
		}
	}
	files := map[string]string{}
	for rule, objects := range sources {
		var documents []string
		for _, object := range objects {
			written, err := json.Marshal(object)
			if err != nil {
				return nil, clean, err
			}
			documents = append(documents, string(written))
		}
		file, err := os.CreateTemp("", "source-*.yaml")
		if err != nil {
			return nil, clean, err
		}
		made = append(made, file.Name())
		if _, err := file.WriteString(strings.Join(documents, "\n---\n")); err != nil {
			return nil, clean, err
		}
		_ = file.Close()
		files[processor.PolicyRuleKey(policy, rule)] = file.Name()
	}
	return files, clean, nil
}

func outcomeOf(resource unstructured.Unstructured, responses []engineapi.EngineResponse) outcome {
	told := outcome{Object: resource.Object}
	for _, response := range responses {
		if response.PatchedResource.Object != nil {
			told.Object = response.PatchedResource.Object
		}
		for _, rule := range response.PolicyResponse.Rules {
			told.Rules = append(told.Rules, ruleOutcome{rule.Name(), string(rule.Status()), rule.Message()})
			if target, _, _ := rule.PatchedTarget(); target != nil {
				told.Targets = append(told.Targets, target.Object)
			}
			for _, made := range rule.GeneratedResources() {
				if made != nil {
					told.Generated = append(told.Generated, made.Object)
				}
			}
		}
	}
	return told
}
