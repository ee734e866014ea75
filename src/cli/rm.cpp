// `mneme rm NAME`: deletes a model of the store.
#include <fmt/format.h>

#include <memory>

#include "cli/options.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"

namespace mneme::cli::rm_verb {
namespace {

struct Options {
  CommonOptions common;
  std::vector<std::string> names;
};

int run(const Options& options) {
  // All names are looked up before anything is deleted: a slip in the last one costs nothing.
  std::vector<StoredModel> models;
  for (const std::string& name : options.names) models.push_back(find_stored_model(name));
  Json removed = Json::array();
  for (const StoredModel& model : models) {
    const uint64_t bytes = remove_model(model);
    removed.push_back(
        {{"name", model.name}, {"path", model.path.string()}, {"type", model.type}, {"bytes", bytes}});
    if (!options.common.json && !options.common.quiet)
      fmt::print(stderr, "removed {} ({})\n", model.name, human_bytes(static_cast<double>(bytes)));
  }
  if (options.common.json) print_json(removed);
  return kDone;
}

const VerbRegistration registration({.name = "rm",
                                     .summary = "Delete models from the local store",
                                     .group = Group::models,
                                     .examples = {{"mneme rm Qwen2.5-0.5B-Instruct-Q8_0",
                                                   "the last part of a name is enough where it is unique"}},
                                     .setup = [](CLI::App& app) -> Action {
                                       auto options = std::make_shared<Options>();
                                       app.add_option("name", options->names,
                                                      "Names as `mneme list` shows them")
                                           ->type_name("NAME")
                                           ->required();
                                       add_common_options(app, options->common);
                                       return [options] { return run(*options); };
                                     }});

}  // namespace
}  // namespace mneme::cli::rm_verb
