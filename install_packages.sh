#!/usr/bin/env bash
# Makes .venv beside this file and activates it: `source install_packages.sh [OPTION]` from bash or zsh, in any folder.
#   --no-detectron2   leave out detectron2, which only downstream/train_*.py needs
#   --detectron2      try again to get detectron2 after it was left out or out of reach
#   --timm            add timm, for backbones named timm/...
#   --help            show this text and do nothing
# PYTHON=PATH names the Python (3.11 or newer) to build .venv with, DETECTRON2_SOURCE=DIR a local detectron2 tree.
# `bash install_packages.sh` does the same without activating. A second call only checks and activates.

if [ -z "${BASH_VERSION:-}${ZSH_VERSION:-}" ]; then
    echo "install_packages.sh: this shell is neither bash nor zsh; use: bash install_packages.sh" >&2
    # shellcheck disable=SC2317
    return 1 2>/dev/null || exit 1
fi

# Sourced: a child process does all the work, so that nothing but the activation touches the caller's shell.
_pixpro_activate() { # [OPTION...]
    local script folder option
    if [ -n "${ZSH_VERSION:-}" ]; then
        emulate -L zsh
        eval 'script=${(%):-%x}'
    else
        script=${BASH_SOURCE[0]}
        # Sourced without arguments a file sees its caller's; bash then notes the file itself as the argument.
        if [ "${BASH_ARGV[0]:-}" = "$script" ]; then set --; fi
    fi
    folder=$(CDPATH='' builtin cd -- "$(command dirname -- "$script")" && builtin pwd -P) || return 1
    PIXPRO_SOURCED=1 command bash "$folder/install_packages.sh" "$@" || return 1
    for option in "$@"; do
        if [ "$option" = --help ] || [ "$option" = -h ]; then return 0; fi
    done
    # shellcheck disable=SC1091
    . "$folder/.venv/bin/activate"
}

case ${ZSH_VERSION:+zsh}${ZSH_EVAL_CONTEXT:-} in
*:file*) ;;
zsh*) exec bash "$0" "$@" ;; # executed as `zsh install_packages.sh`
esac
if [ -n "${ZSH_VERSION:-}" ] || [ "${BASH_SOURCE[0]}" != "$0" ]; then
    if _pixpro_activate "$@"; then
        unset -f _pixpro_activate
        return 0
    fi
    unset -f _pixpro_activate
    return 1
fi

# Executed: everything below runs in a process of its own.
set -u
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE PYTHONHOME # set by git hooks and module systems, misleading here
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

folder=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P) || exit 1
venv=$folder/.venv
PATH=${PATH/#"$venv/bin:"/} # an active but broken .venv must not be asked for its Python
stamp=$venv/.pixpro-stamp       # fingerprint of what was installed, or "installing" while pip works
left_out=$venv/.pixpro-left-out # why detectron2 is not there; keeps the next call from trying again
log=$venv/install.log

detectron2_url=https://github.com/facebookresearch/detectron2
detectron2_commit=02b5c4e295e990042a714712c21dc79b731e8833 # main of 2026-06-06; the last tag breaks on today's numpy
detectron2_checkout=$venv/src/detectron2-${detectron2_commit:0:7}
# What training and evaluating C4 and FPN detectors imports, read off by blocking each (hydra, matplotlib, black: not).
detectron2_needs=(
    "fvcore>=0.1.5,<0.1.6"  # configs, checkpoints, PreciseBN; its range is detectron2's own
    "iopath>=0.1.7,<0.1.10" # file access; its range is detectron2's own
    "omegaconf>=2.1,<2.4"   # imported with detectron2.config; its range is detectron2's own
    "yacs>=0.1.8"           # the YAML configs
    "tabulate"              # result tables
    "termcolor>=1.1"        # coloured logs
    "cloudpickle"           # data set objects handed to workers
    "tqdm>4.29.0"           # imported with detectron2.data
    "packaging"             # version comparisons
)

say() { printf '%s\n' "$*"; }

fail() { # one line on stderr, and the end of this process
    printf 'install_packages.sh: %s\n' "$*" >&2
    exit 1
}

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

last_error() { # the last thing pip or Python complained about
    grep -E '^ *(ERROR|[A-Za-z]*Error)\b' "$log" | tail -n 1 | sed 's/^ *ERROR: *//'
}

find_python() { # prints the first Python that is new enough and can make environments
    local candidates=(python3 python3.14 python3.13 python3.12 python3.11 python) python version reason=""
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for python in "${candidates[@]}"; do
        version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
        if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            reason=${reason:-"$python is Python $version, 3.11 or newer is needed: install one or name it with PYTHON=/path/to/python3"}
        elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            reason=${reason:-"$python (Python $version) lacks the venv module: install it (Debian, Ubuntu: apt-get install python3-venv) or name another Python with PYTHON=/path/to/python3"}
        else
            say "$python"
            return 0
        fi
    done
    fail "${reason:-no Python found as ${candidates[*]}: install Python 3.11 or newer or name it with PYTHON=/path/to/python3}"
}

fingerprint() { # of what .venv should hold; fails with 3 when a package is gone, else when .venv is unusable
    # An environment remembers its folder: one that was moved activates the wrong place.
    # shellcheck disable=SC1091
    (. "$venv/bin/activate" && [ "$VIRTUAL_ENV" = "$venv" ]) >/dev/null 2>&1 || return 1
    "$venv/bin/python" -I - "$folder" 2>/dev/null <<'PYTHON'
import sys

try:
    import hashlib
    import pathlib
    import re
    from importlib import metadata, util

    assert sys.version_info >= (3, 11) and util.find_spec("pip")
except Exception:
    sys.exit(1)
folder = pathlib.Path(sys.argv[1])
names = ["requirements.txt", "pyproject.toml", "install_packages.sh"]
content = b"\0".join((folder / name).read_bytes() for name in names) + sys.version.encode()
print(hashlib.sha256(content).hexdigest())
lines = (folder / "requirements.txt").read_text().splitlines()
required = [match[0] for line in lines if (match := re.match(r"[A-Za-z0-9][\w.-]*", line))]
try:
    for name in [*required, "pixpro"]:
        metadata.version(name)
except metadata.PackageNotFoundError:
    sys.exit(3)
PYTHON
}

is_installed() {
    local now
    now=$(fingerprint) && [ "$now" = "$(cat "$stamp" 2>/dev/null)" ]
}

pip() { "$venv/bin/python" -I -m pip "$@" 2>>"$log"; }

lock() { # so that two jobs on one folder do not install at the same time
    command -v flock >/dev/null || return 0
    exec 9<"$folder/pyproject.toml"
    flock --nonblock 9 && return 0
    say "another set-up of $folder is running: waiting for it"
    flock 9
}

install() {
    local python now message quiet=(--quiet)
    now=$(fingerprint)
    if ! [[ $? =~ ^[03]$ ]] || [ "$(cat "$stamp" 2>/dev/null)" = installing ]; then
        python=$(find_python) || exit 1
        if [ -e "$venv" ]; then say "$venv is broken, was moved or interrupted: making it anew"; else say "making $venv"; fi
        message=$("$python" -m venv --clear "$venv" 2>&1) ||
            fail "could not make $venv with $python: ${message##*$'\n'}"
        now=$(fingerprint)
        [[ $? =~ ^[03]$ ]] || fail "$python made an unusable $venv"
    fi
    say "installing the packages of requirements.txt into .venv (with torch some GB and some minutes)"
    : >"$log" || fail "cannot write $log"
    say installing >"$stamp"
    if [ -t 1 ]; then quiet=(); fi
    if ! pip install ${quiet[@]+"${quiet[@]}"} -r requirements.txt -e ".[test]"; then
        rm -f "$stamp"
        fail "pip could not install the packages: $(last_error) (details: $log)"
    fi
    say "$now" >"$stamp"
}

limited() { # SECONDS COMMAND...: a name server or a host that never answers must not hold up the rest
    if command -v timeout >/dev/null; then timeout --kill-after=1 "$@"; else "${@:2}"; fi
}

fetch_detectron2() { # the one commit, at $detectron2_checkout; out of reach it gives up within 15 seconds
    local part=$detectron2_checkout.part
    [ -f "$detectron2_checkout/detectron2/__init__.py" ] && return 0
    export GIT_TERMINAL_PROMPT=0
    limited 7 git ls-remote "$detectron2_url" HEAD </dev/null >/dev/null 2>>"$log" || return 1
    rm -rf "$part" && git init --quiet "$part" 2>>"$log" || return 1
    # Answering but slow is fine; silent for 6 seconds is not.
    limited 600 git -C "$part" -c http.lowSpeedLimit=1 -c http.lowSpeedTime=6 fetch --quiet --depth 1 \
        "$detectron2_url" "$detectron2_commit" </dev/null 2>>"$log" || return 1
    git -C "$part" checkout --quiet FETCH_HEAD 2>>"$log" || return 1
    rm -rf "$detectron2_checkout" && mv "$part" "$detectron2_checkout"
}

leave_out_detectron2() { # WHY
    rm -f "$path_file"
    say "$1" >"$left_out"
}

has_detectron2() { # that of this commit, or the one that DETECTRON2_SOURCE names or named
    local source
    source=$(cat "$path_file" 2>/dev/null) && [ -f "$source/detectron2/__init__.py" ] || return 1
    if [ -n "$detectron2_source" ]; then
        [ "$source" = "$detectron2_source" ]
    else
        case $source in "$detectron2_checkout") ;; "$venv"/*) return 1 ;; esac # fetched for an earlier pin
    fi
}

add_detectron2() { # on the path of .venv, not compiled: C4 and FPN take their operators from torchvision
    local source=${detectron2_source:-$detectron2_checkout}
    : >"$log"
    if [ -n "$detectron2_source" ]; then
        say "adding detectron2 from $source, with the few packages it needs"
    else
        say "adding detectron2 (source at commit ${detectron2_commit:0:7}, with the few packages it needs)"
        fetch_detectron2 || {
            leave_out_detectron2 "$detectron2_url is out of reach"
            return
        }
    fi
    pip install --quiet --retries 0 --timeout 12 "${detectron2_needs[@]}" || {
        leave_out_detectron2 "pip could not install what it needs: $(last_error)"
        return
    }
    say "$source" >"$path_file"
    "$venv/bin/python" -c 'from detectron2.engine import DefaultTrainer' >/dev/null 2>>"$log" || {
        leave_out_detectron2 "it does not import: $(last_error)"
        return
    }
    rm -f "$left_out"
}

add_timm() { # with what reads the Hugging Face hub
    "$venv/bin/python" -I -c 'import huggingface_hub, timm' >/dev/null 2>&1 && return 0
    say "adding timm, with the few packages it needs"
    : >"$log"
    pip install --quiet -e ".[timm]" || fail "pip could not install timm: $(last_error) (details: $log)"
}

main() {
    local option want=auto want_timm=no
    detectron2_source=""
    for option in "$@"; do
        case $option in
        --detectron2) want=yes ;;
        --no-detectron2) want=no ;;
        --timm) want_timm=yes ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown option '$option'; the options are --no-detectron2, --detectron2, --timm and --help" ;;
        esac
    done
    if [ -n "${DETECTRON2_SOURCE:-}" ] && [ $want != no ]; then
        [ -f "$DETECTRON2_SOURCE/detectron2/__init__.py" ] ||
            fail "DETECTRON2_SOURCE=$DETECTRON2_SOURCE holds no detectron2/__init__.py: name the root of a detectron2 tree"
        detectron2_source=$(CDPATH='' cd -- "$DETECTRON2_SOURCE" && pwd -P)
    fi
    cd "$folder" || exit 1
    is_installed || { lock && { is_installed || install; }; }

    if [ $want_timm = yes ]; then add_timm; fi
    path_file=$(echo "$venv"/lib/python3*/site-packages)/detectron2-source.pth
    if ! has_detectron2; then
        if [ $want = no ]; then
            leave_out_detectron2 "left out with --no-detectron2"
        elif [ $want = yes ] || [ -n "$detectron2_source" ] || [ ! -f "$left_out" ]; then
            add_detectron2
        fi
        if [ -f "$left_out" ]; then
            say "no detectron2: $(cat "$left_out"). Only downstream/train_*.py needs it; to try again: source install_packages.sh --detectron2"
        fi
    fi
    if [ -n "${PIXPRO_SOURCED:-}" ]; then say "ready: $venv is active"; else say "ready; to use it: source $venv/bin/activate"; fi
}

main "$@"
