// `mneme eval`: the verb above eval_*.cpp, which register its sub-verbs. By itself it only says which there
// are.
#include <fmt/format.h>

#include <memory>

#include "cli/options.h"
#include "cli/verb.h"

namespace mneme::cli {
namespace {

struct Options {
  CommonOptions common;
  std::string what;
};

std::vector<std::string> part_names() {
  std::vector<std::string> names;
  for (const Verb* part : sub_verbs("eval")) names.push_back(part->name);
  return names;
}

const VerbRegistration registration(
    {.name = "eval",
     .summary = "Built-in evaluations: what a model recalls of a long text",
     .group = Group::measure,
     .examples = {{"mneme eval needle MODEL --lengths 1024,4096,16384 --plot needle.svg",
                   "one hidden number, by length and depth, with a heat map"},
                  {"mneme eval variables MODEL --json", "chains of assignments, as JSON"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("task", options->what, "What to evaluate")
           ->type_name("TASK")
           ->check(CLI::IsMember(part_names()));
       add_common_options(app, options->common);
       return []() -> int { throw UsageError(fmt::format("what? {}", fmt::join(part_names(), ", "))); };
     }});

}  // namespace
}  // namespace mneme::cli
