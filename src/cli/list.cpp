// `mneme list`: the models of the store.
#include <fmt/format.h>

#include <memory>

#include "cli/options.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "core/paths.h"

namespace mneme::cli::list_verb {
namespace {

int run(const CommonOptions& options) {
  const std::vector<StoredModel> models = stored_models();
  if (options.json) {
    Json array = Json::array();
    for (const StoredModel& model : models)
      array.push_back({{"name", model.name},
                       {"path", model.path.string()},
                       {"type", model.type},
                       {"bytes", model.bytes}});
    print_json(array);
    return kDone;
  }
  std::vector<std::vector<std::string>> rows{{"name", "type", "size"}};
  for (const StoredModel& model : models)
    rows.push_back({model.name, model.type, human_bytes(static_cast<double>(model.bytes))});
  if (!models.empty()) {
    print(table(rows));
  } else if (!options.quiet) {
    fmt::print(stderr, "no models in {}; `mneme pull hf:USER/REPO` gets one\n", models_folder().string());
  }
  return kDone;
}

const VerbRegistration registration({.name = "list",
                                     .summary = "List the models of the local store",
                                     .group = Group::models,
                                     .examples = {{"mneme list", "names, types and sizes"},
                                                  {"mneme list --json", "with paths, for scripts"}},
                                     .setup = [](CLI::App& app) -> Action {
                                       auto options = std::make_shared<CommonOptions>();
                                       add_common_options(app, *options);
                                       return [options] { return run(*options); };
                                     }});

}  // namespace
}  // namespace mneme::cli::list_verb
