// SPDX-License-Identifier: Apache-2.0

// libcni as a command, and called by another name a plugin that stands in for one which makes a
// network. The command takes a JSON document of calls and prints one outcome a line: a runtime's
// order of calls is the document's. The configuration is found as go-cni and ocicni find it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// What a document says: where things are, and what to call in which order.
type document struct {
	ConfDir, BinDir, CacheDir string
	Calls                     []call
}

type call struct {
	// ADD, CHECK, DEL, GC or STATUS; "DEL cached" with the configuration that ADD has cached.
	Command, Container, Netns string
	Args                      map[string]string
	Valid                     []types.GCAttachment
	// Whose addresses and host-side interface the stand-in prints.
	Addresses []string
	Host      string
}

type outcome struct {
	Error  string          `json:"error"`
	Code   uint            `json:"code"`
	Result json.RawMessage `json:"result,omitempty"`
}

func main() {
	if name := filepath.Base(os.Args[0]); name != "libcni" {
		standIn()
		return
	}
	var asked document
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fmt.Fprintln(os.Stderr, "libcni: no document on stdin:", err)
		os.Exit(2)
	}
	printed := json.NewEncoder(os.Stdout)
	for _, next := range asked.Calls {
		if err := printed.Encode(told(run(asked, next))); err != nil {
			os.Exit(1)
		}
	}
}

func told(result types.Result, err error) outcome {
	var found outcome
	if err != nil {
		found.Error = err.Error()
		if refused, ok := err.(*types.Error); ok {
			found.Code = refused.Code
		}
	}
	if result != nil {
		found.Result, _ = json.Marshal(result)
	}
	return found
}

// The first file by name that is a configuration, a single one made a list.
func configuration(dir string) (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no configuration in %s", dir)
	}
	sort.Strings(files)
	if strings.HasSuffix(files[0], ".conflist") {
		return libcni.ConfListFromFile(files[0])
	}
	single, err := libcni.ConfFromFile(files[0])
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromConf(single)
}

func run(asked document, next call) (types.Result, error) {
	library := libcni.NewCNIConfigWithCacheDir([]string{asked.BinDir}, asked.CacheDir, nil)
	list, err := configuration(asked.ConfDir)
	if err != nil {
		return nil, err
	}
	os.Setenv("STANDIN_ADDRESSES", strings.Join(next.Addresses, ","))
	os.Setenv("STANDIN_HOST", next.Host)
	runtime := &libcni.RuntimeConf{ContainerID: next.Container, NetNS: next.Netns, IfName: "eth0"}
	for name, value := range next.Args {
		runtime.Args = append(runtime.Args, [2]string{name, value})
	}
	ctx := context.Background()
	switch next.Command {
	case "ADD":
		return library.AddNetworkList(ctx, list, runtime)
	case "CHECK":
		return nil, library.CheckNetworkList(ctx, list, runtime)
	case "DEL":
		return nil, library.DelNetworkList(ctx, list, runtime)
	case "DEL cached":
		return nil, deleteCached(ctx, library, list, runtime)
	case "GC":
		return nil, library.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: next.Valid})
	case "STATUS":
		return nil, library.GetStatusNetworkList(ctx, list)
	}
	return nil, fmt.Errorf("there is no command %q", next.Command)
}

// As ocicni does it: the configuration of ADD counts, whatever is on the node now.
func deleteCached(ctx context.Context, library *libcni.CNIConfig, list *libcni.NetworkConfigList, runtime *libcni.RuntimeConf) error {
	text, cached, err := library.GetNetworkListCachedConfig(list, runtime)
	if err != nil || text == nil {
		return fmt.Errorf("no cached configuration: %w", err)
	}
	before, err := libcni.ConfListFromBytes(text)
	if err != nil {
		return err
	}
	return library.DelNetworkList(ctx, before, cached)
}

// A plugin that has made a network, or one behind it that changes nothing.
func standIn() {
	nothing := func(*skel.CmdArgs) error { return nil }
	functions := skel.CNIFuncs{Add: made, Del: nothing, Check: nothing, GC: nothing, Status: nothing}
	skel.PluginMainFuncs(functions, version.All, "a stand-in for the tests")
}

func made(args *skel.CmdArgs) error {
	conf := types.NetConf{}
	if err := json.Unmarshal(args.StdinData, &conf); err != nil {
		return err
	}
	if err := version.ParsePrevResult(&conf); err != nil {
		return err
	}
	if conf.PrevResult != nil {
		return types.PrintResult(conf.PrevResult, conf.CNIVersion)
	}
	inside := 1
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Interfaces: []*current.Interface{
		{Name: os.Getenv("STANDIN_HOST")}, {Name: args.IfName, Sandbox: args.Netns},
	}}
	for _, address := range strings.Split(os.Getenv("STANDIN_ADDRESSES"), ",") {
		ip, network, err := net.ParseCIDR(address)
		if err != nil {
			return err
		}
		network.IP = ip
		result.IPs = append(result.IPs, &current.IPConfig{Address: *network, Interface: &inside})
	}
	return types.PrintResult(result, conf.CNIVersion)
}
