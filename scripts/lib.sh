# Shared by run.sh and test.sh (sourced, bash): installs what is missing, builds, fetches models.
# Nothing here is done twice: each step first looks whether it is needed, so that a second start costs milliseconds.
# Messages go to stderr; stdout belongs to the program.

MNEME_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Compiles of another checkout of the same sources count as the same (see also -ffile-prefix-map in cmake/).
export CCACHE_BASEDIR=$MNEME_TOP CCACHE_NOHASHDIR=1

say() { printf 'mneme: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# read_packages FILE...: the names in scripts/packages.*
read_packages() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@"; }

# missing_packages NAME...: those that dpkg does not have installed.
missing_packages() {
  local installed
  installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "$@" 2>/dev/null | sed -n 's/^ii //p')
  comm -13 <(sort -u <<<"$installed") <(printf '%s\n' "$@" | sort -u)
}

# ensure_packages FILE...: installs what is missing from the lists. When apt cannot (no network, no root, not Debian)
# it says so and goes on: the libraries may be there by other means, and the build will tell if they are not.
ensure_packages() {
  local -a wanted missing
  mapfile -t wanted < <(read_packages "$@")
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    local stamp=$MNEME_TOP/build/.needs-shown
    [[ -e $stamp ]] && return 0
    say "this is not Debian; needed are (Debian names): ${wanted[*]}"
    mkdir -p "$MNEME_TOP/build" && : >"$stamp"
    return 0
  fi
  mapfile -t missing < <(missing_packages "${wanted[@]}")
  ((${#missing[@]})) || return 0
  local unobtainable=$MNEME_TOP/build/.apt-failed
  [[ -e $unobtainable && $(<"$unobtainable") == "${missing[*]}" ]] && return 0  # tried before, and the build worked

  local -a root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || { say "not root and no sudo; if the build fails: apt-get install ${missing[*]}"; return 0; }
    root=(sudo)
  fi
  say "installing with apt: ${missing[*]}"
  local -a apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -y -o DPkg::Lock::Timeout=300)
  local log
  log=$(mktemp)
  if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >"$log" 2>&1 </dev/null; then
    "${apt[@]}" update >"$log" 2>&1 </dev/null  # lists absent or stale; some mirrors may fail, install decides
    if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null; then
      grep -E '^(E|Err|W):?' "$log" | tail -n 5 >&2
      say "apt could not install: ${missing[*]} (going on; they may be here by other means)"
      MNEME_APT_FAILED="${missing[*]}"
    fi
  fi
  rm -f "$log"
}

# build_targets PRESET [TARGET...]: configures when needed and builds. Concurrent calls for a preset wait for each other.
build_targets() {
  local preset=$1 dir=$MNEME_TOP/build/$1
  shift
  mkdir -p "$MNEME_TOP/build" || die "cannot write to $MNEME_TOP/build"
  local lock
  exec {lock}>"$MNEME_TOP/build/.$preset.lock"
  flock -n "$lock" || { say "another build is running here; waiting for it"; flock "$lock"; }

  local tool
  for tool in cmake ninja c++; do
    command -v "$tool" >/dev/null || die "cannot build without $tool; install (Debian names): $(read_packages "$MNEME_TOP/scripts/packages.run" | tr '\n' ' ')"
  done
  # A build folder that was configured elsewhere (the tree was moved or copied) cannot be used again.
  if [[ -f $dir/CMakeCache.txt ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$MNEME_TOP" "$dir/CMakeCache.txt"; then
    rm -rf "$dir"
  fi
  local log=$MNEME_TOP/build/$preset.log
  if [[ ! -f $dir/build.ninja || $MNEME_TOP/CMakePresets.json -nt $dir/build.ninja ]]; then
    say "configuring ($preset)"
    if ! (cd "$MNEME_TOP" && cmake --preset "$preset") >"$log" 2>&1 </dev/null; then
      grep -A6 -E 'CMake Error|not found' "$log" | head -n 20 >&2
      die "cmake failed (whole log: $log); needed are (Debian names): $(read_packages "$MNEME_TOP/scripts/packages.run" | tr '\n' ' ')"
    fi
    touch "$dir/build.ninja"
  fi
  local kib jobs
  kib=$(awk '/MemAvailable/ {print $2}' /proc/meminfo)
  jobs=$(nproc)
  ((jobs > kib / 1200000)) && jobs=$((kib / 1200000 > 0 ? kib / 1200000 : 1))  # a compile can take over 1 GB
  if [[ ! -x $dir/bin/mneme ]]; then say "building ($preset, $jobs jobs; a few minutes the first time)"; fi
  if [[ -t 2 ]]; then
    ninja -C "$dir" -j "$jobs" --quiet "$@" >&2 </dev/null {lock}>&- || die "the build failed (see above)"
  else
    if ! ninja -C "$dir" -j "$jobs" "$@" >"$log" 2>&1 </dev/null {lock}>&-; then
      grep -m 20 -A4 -E 'error|FAILED' "$log" >&2
      die "the build failed (whole log: $log)"
    fi
  fi
  if [[ -n ${MNEME_APT_FAILED-} ]]; then printf '%s' "$MNEME_APT_FAILED" >"$MNEME_TOP/build/.apt-failed"; fi
  exec {lock}>&-
}

# store_dir: where models are kept; the same rule as src/core/paths.h.
store_dir() {
  local home=${HOME-}
  [[ -n $home ]] || home=~  # from the user database
  if [[ -n ${MNEME_HOME-} ]]; then printf '%s\n' "$MNEME_HOME"
  elif [[ ${XDG_DATA_HOME-} == /* ]]; then printf '%s\n' "$XDG_DATA_HOME/mneme"
  else printf '%s\n' "$home/.local/share/mneme"; fi
}

# model_path DESCRIPTION: the path of a described model in the store; fails if it is not there in full.
model_path() {
  local key value file='' bytes=''
  while read -r key value; do
    case $key in file) file=$value ;; bytes) bytes=$value ;; esac
  done <"$1"
  local path
  path=$(store_dir)/models/$file
  printf '%s\n' "$path"
  [[ -f $path && $(stat -c %s "$path") == "$bytes" ]]
}

# model_name DESCRIPTION: what the model is called.
model_name() { sed -n 's/^name[[:space:]]*//p' "$1"; }

# ensure_model DESCRIPTION: fetches the model unless it is in the store. Prints its path.
ensure_model() {
  model_path "$1" && return 0
  python3 "$MNEME_TOP/scripts/fetch_model.py" "$1" --store "$(store_dir)" --venv "$MNEME_TOP/build/venv" >/dev/null
}
