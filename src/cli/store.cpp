#include "cli/store.h"

#include <algorithm>

#include "cli/suggest.h"
#include "core/fail.h"
#include "core/paths.h"

namespace mneme::cli {
namespace {

namespace fs = std::filesystem;

bool is_model_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path / "config.json", ignored);
}

void add_models_below(const fs::path& folder, const fs::path& root, int depth,
                      std::vector<StoredModel>& models) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    const fs::path& path = it->path();
    const std::string name = path.lexically_relative(root).string();
    if (path.filename().string().starts_with('.')) continue;
    if (it->is_directory(ignored)) {
      if (is_model_folder(path)) {
        models.push_back({name, path, "huggingface"});
      } else if (depth > 0) {
        add_models_below(path, root, depth - 1, models);
      }
    } else if (path.extension() == ".gguf" && it->is_regular_file(ignored)) {
      models.push_back({name.substr(0, name.size() - 5), path, "gguf"});
    }
  }
}

}  // namespace

std::vector<StoredModel> stored_models() {
  std::vector<StoredModel> models;
  add_models_below(models_folder(), models_folder(), 3, models);
  std::sort(models.begin(), models.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return models;
}

fs::path resolve_model(const std::string& model) {
  require(!model.empty(), ErrorCode::not_found,
          "the model's name is empty; give a GGUF file, a Hugging Face folder, or a name of `mneme list`");
  std::error_code ignored;
  if (fs::exists(model, ignored)) {
    require(!fs::is_directory(model, ignored) || is_model_folder(model), ErrorCode::not_found,
            "{} is a folder without config.json; a model is a GGUF file or a Hugging Face folder", model);
    return model;
  }
  std::vector<std::string> names;
  for (const StoredModel& stored : stored_models()) {
    if (stored.name == model || stored.path.filename() == model) return stored.path;
    names.push_back(stored.name);
  }
  const bool looks_like_path = model.find('/') != std::string::npos || model.ends_with(".gguf");
  fail(ErrorCode::not_found, "no model \"{}\": {}no model of that name in {}{}", model,
       looks_like_path ? "no such file or folder, and " : "", models_folder().string(),
       names.empty() ? "; `mneme pull` gets one" : did_you_mean(model, names) + " (`mneme list` shows all)");
}

}  // namespace mneme::cli
