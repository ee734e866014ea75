// `mneme tokenizer`: the verb above tokenizer_*.cpp, which register its sub-verbs.
#include "cli/parent_verb.h"

namespace mneme::cli::tokenizer_verb {
namespace {

const VerbRegistration registration(
    parent_verb({.name = "tokenizer",
                 .summary = "Make a tokenizer from texts",
                 .group = Group::models,
                 .examples = {{"mneme tokenizer train corpus/ -o tokenizer --vocab 8192",
                               "byte-level BPE over a folder"}},
                 .setup = {}},
                "what", "What to do"));

}  // namespace
}  // namespace mneme::cli::tokenizer_verb
