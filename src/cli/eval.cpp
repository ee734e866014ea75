// `mneme eval`: the verb above eval_*.cpp, which register its sub-verbs.
#include "cli/parent_verb.h"

namespace mneme::cli::eval_verb {
namespace {

const VerbRegistration registration(
    parent_verb({.name = "eval",
                 .summary = "Built-in evaluations: what a model recalls of a long text",
                 .group = Group::measure,
                 .examples = {{"mneme eval needle MODEL --lengths 1024,4096,16384 --plot needle.svg",
                               "one hidden number, by length and depth, with a heat map"},
                              {"mneme eval variables MODEL --json", "chains of assignments, as JSON"}},
                 .setup = {}},
                "task", "What to evaluate"));

}  // namespace
}  // namespace mneme::cli::eval_verb
