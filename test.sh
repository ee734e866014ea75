#!/usr/bin/env bash
# Sets up, builds and runs every test; the last line is "N passed, N failed, N skipped", the exit code 0 only if none failed.
#   ./test.sh              stages that passed and whose inputs did not change since are not run again (and it says so)
#   ./test.sh --all        run everything
#   ./test.sh --only STAGE[,STAGE]   one or more of: house format release package asan tsan fuzz tidy
# The stages themselves are in scripts/check.py.
set -uo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/lib.sh"
ensure_packages "$MNEME_TOP/scripts/packages.run" "$MNEME_TOP/scripts/packages.test" "$MNEME_TOP/scripts/packages.train" "$MNEME_TOP/scripts/packages.mpi"
command -v python3 >/dev/null || die "cannot test without python3"

# Real models for the tests that want one. Without them those tests are skipped and say why.
fetch() {
  local path
  path=$(ensure_model "$MNEME_TOP/models/$2.model") && export "$1=$path"
}
[[ -n ${MNEME_TEST_MODEL-} ]] || fetch MNEME_TEST_MODEL default
[[ -n ${MNEME_TEST_GEMMA-} ]] || fetch MNEME_TEST_GEMMA gemma-3-270m
# The tokenizers of well-known models; the script says why if they cannot be had.
if [[ -z ${MNEME_TEST_TOKENIZERS-} ]]; then
  folder=$("$MNEME_TOP/tools/fetch_test_tokenizers.sh" </dev/null) && export MNEME_TEST_TOKENIZERS=$folder
fi

exec python3 "$MNEME_TOP/scripts/check.py" "$@"
