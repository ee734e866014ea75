#!/usr/bin/env bash
# From a fresh Debian 12 to a conversation: installs what is missing, builds a release, fetches the default model, then
# runs `mneme run` with all arguments.   ./run.sh            chat
#                                        ./run.sh -p "text"  one answer
#                                        ./run.sh --model FILE.gguf …   another model; nothing is downloaded
#                                        ./run.sh --pocket …            the model that the sources bring along, also
#                                                                       used where the default cannot be fetched
#                                        ./run.sh --build-only          build/release/bin/mneme, and no more
#                                        ./run.sh --build-train         the trainer too, which needs libtorch (`mneme train`)
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/lib.sh"

if [[ ${1-} == --build-only ]]; then
  (($# == 1)) || { say "--build-only takes no other argument"; exit 2; }
  ensure_packages "$MNEME_TOP/scripts/packages.run"
  build_targets release mneme_cli
  say "built $MNEME_TOP/build/release/bin/mneme"
  exit 0
fi

if [[ ${1-} == --build-train ]]; then
  (($# == 1)) || { say "--build-train takes no other argument"; exit 2; }
  ensure_packages "$MNEME_TOP/scripts/packages.run" "$MNEME_TOP/scripts/packages.train"
  rm -f "$MNEME_TOP/build/release/build.ninja"  # libtorch may be new: look for it again
  build_targets release mneme_cli
  grep -q '^build bin/mneme-train:' "$MNEME_TOP/build/release/build.ninja" ||
    die "libtorch was not found; needed are (Debian names): $(read_packages "$MNEME_TOP/scripts/packages.train" | tr '\n' ' ')"
  build_targets release mneme_train
  say "built $MNEME_TOP/build/release/bin/mneme and mneme-train"
  exit 0
fi

pocket=$MNEME_TOP/models/pocket.gguf
if [[ ${1-} == --pocket ]]; then
  shift
  [[ -f $pocket ]] || die "$pocket is not there; it comes with the sources"
  set -- --model "$pocket" "$@"
fi

# Is a model named? `--model X`, `--model=X`, a first argument that is no option, or -h.
named=no quiet=no
[[ -n ${1-} && $1 != -* ]] && named=yes
for argument in "$@"; do
  case $argument in
    --model | --model=* | -h | --help | --help-all) named=yes ;;
    -q | --quiet) quiet=yes ;;
    *.gguf) [[ -f $argument ]] && named=yes ;;
  esac
done

ensure_packages "$MNEME_TOP/scripts/packages.run"
build_targets release mneme_cli
if [[ $named == no ]]; then
  if ensure_model "$MNEME_TOP/models/default.model" >/dev/null; then
    [[ $quiet == yes ]] || say "the model is $(model_name "$MNEME_TOP/models/default.model")"
  elif [[ -f $pocket ]]; then
    say "the default model could not be fetched (see above); this is the pocket model instead, $pocket ($(stat -c %s "$pocket" | awk '{printf "%.1f", $1 / 1e6}') MB): it continues texts and answers no questions"
    say "with a network, the next start fetches the default model; a file of your own: ./run.sh --model FILE.gguf"
    set -- --model "$pocket" "$@"
  else
    die "the default model could not be fetched (see above) and $pocket is missing; connect to the network and try again, or use a file of your own: ./run.sh --model FILE.gguf"
  fi
fi
exec "$MNEME_TOP/build/release/bin/mneme" run "$@"
