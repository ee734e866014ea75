// `mneme memory`: the verb above memory_*.cpp, each of which registers one sub-verb of it. By itself it only
// says which there are.
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
  for (const Verb* part : sub_verbs("memory")) names.push_back(part->name);
  return names;
}

const VerbRegistration registration(
    {.name = "memory",
     .summary = "Engram memory: tables of rows that hashed n-grams select",
     .group = Group::models,
     .examples = {{"mneme memory rows --config engram.json --ids 5,7,11", "the row ids of three tokens"},
                  {"mneme memory attach MODEL facts.engram facts.gguf",
                   "a model that has the memory for good"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("what", options->what, "What to do")
           ->type_name("WHAT")
           ->check(CLI::IsMember(part_names()));
       add_common_options(app, options->common);
       return []() -> int { throw UsageError(fmt::format("what? {}", fmt::join(part_names(), ", "))); };
     }});

}  // namespace
}  // namespace mneme::cli
