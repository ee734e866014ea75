// `mneme memory`: the verb above memory_*.cpp, each of which registers one sub-verb of it.
#include "cli/parent_verb.h"

namespace mneme::cli::memory_verb {
namespace {

const VerbRegistration registration(parent_verb(
    {.name = "memory",
     .summary = "Engram memory: tables of rows that hashed n-grams select",
     .group = Group::models,
     .examples = {{"mneme memory rows --config engram.json --ids 5,7,11", "the row ids of three tokens"},
                  {"mneme memory attach MODEL facts.engram facts.gguf",
                   "a model that has the memory for good"}},
     .setup = {}},
    "what", "What to do"));

}  // namespace
}  // namespace mneme::cli::memory_verb
