#include "cli/store.h"

#include <algorithm>

#include "cli/gguf_parts.h"
#include "cli/suggest.h"
#include "core/fail.h"
#include "core/paths.h"

namespace mneme::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kDepth = 3;  // models/USER/REPO/FOLDER/FILE

bool is_model_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path / "config.json", ignored);
}

uint64_t size_of(const fs::path& path) {
  std::error_code error;
  const uint64_t bytes = fs::file_size(path, error);
  return error ? 0 : bytes;
}

uint64_t folder_bytes(const fs::path& folder) {
  uint64_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) bytes += size_of(it->path());
  }
  return bytes;
}

std::vector<fs::path> files_of(const StoredModel& model) {
  const std::string whole = gguf_part(model.path.filename().string()).whole;
  if (whole == model.path.filename().string()) return {model.path};
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator it(model.path.parent_path(), error), end; !error && it != end;
       it.increment(error))
    if (it->path().extension() == ".gguf" && gguf_part(it->path().filename().string()).whole == whole)
      files.push_back(it->path());
  return files;
}

void add_models_below(const fs::path& folder, const fs::path& root, int depth,
                      std::vector<StoredModel>& models) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    const fs::path& path = it->path();
    const std::string file = path.filename().string();
    if (file.starts_with('.')) continue;
    if (it->is_directory(ignored)) {
      if (is_model_folder(path)) {
        models.push_back({path.lexically_relative(root).string(), path, "huggingface", folder_bytes(path)});
      } else if (depth > 0) {
        add_models_below(path, root, depth - 1, models);
      }
    } else if (path.extension() == ".gguf" && it->is_regular_file(ignored)) {
      const GgufPart part = gguf_part(file);
      if (part.number != 1) continue;
      const std::string name = (path.parent_path() / part.whole).lexically_relative(root).string();
      StoredModel model{name.substr(0, name.size() - 5), path, "gguf", 0};
      for (const fs::path& each : files_of(model)) model.bytes += size_of(each);
      models.push_back(std::move(model));
    }
  }
}

/// Whether `typed` is the whole name, the file name or the end of the name of a model, from a '/' on.
bool names_model(const StoredModel& model, const std::string& typed) {
  return model.name == typed || model.path.filename() == typed || model.name.ends_with("/" + typed) ||
         model.path.string().ends_with("/" + typed);
}

/// The models that `typed` fits: only those whose whole name it is, if there are any.
std::vector<StoredModel> matching(const std::vector<StoredModel>& models, const std::string& typed) {
  std::vector<StoredModel> found;
  for (const StoredModel& model : models) {
    if (model.name == typed) return {model};
    if (names_model(model, typed)) found.push_back(model);
  }
  return found;
}

}  // namespace

std::vector<StoredModel> stored_models() {
  std::vector<StoredModel> models;
  add_models_below(models_folder(), models_folder(), kDepth, models);
  std::sort(models.begin(), models.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return models;
}

StoredModel find_stored_model(const std::string& name) {
  const std::vector<StoredModel> models = stored_models();
  const std::vector<StoredModel> found = name.empty() ? models : matching(models, name);
  std::vector<std::string> names;
  for (const StoredModel& model : found.empty() ? models : found) names.push_back(model.name);
  require(
      !found.empty() && !name.empty(), ErrorCode::not_found, "no model \"{}\" in {}{}", name,
      models_folder().string(),
      names.empty() ? "; `mneme pull` gets one" : did_you_mean(name, names) + " (`mneme list` shows all)");
  require(found.size() == 1, ErrorCode::invalid_argument, "\"{}\" fits more than one stored model: {}", name,
          fmt::join(names, ", "));
  return found.front();
}

fs::path resolve_model(const std::string& model) {
  if (model.empty()) {
    const std::string name = default_model();
    for (const StoredModel& stored : stored_models())
      if (stored.name == name) return stored.path;
    fail(ErrorCode::not_found,
         "the default model {} is not in {}; ./run.sh fetches it, or name a GGUF file, a Hugging Face folder "
         "or a name of `mneme list`",
         name, models_folder().string());
  }
  std::error_code ignored;
  if (fs::exists(model, ignored)) {
    require(!fs::is_directory(model, ignored) || is_model_folder(model), ErrorCode::not_found,
            "{} is a folder without config.json; a model is a GGUF file or a Hugging Face folder", model);
    return model;
  }
  const bool looks_like_path = model.starts_with('/') || model.starts_with('.') || model.ends_with(".gguf");
  try {
    return find_stored_model(model).path;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::not_found || !looks_like_path) throw;
    fail(ErrorCode::not_found, "no file or folder {}, and {}", model, error.what());
  }
}

std::string default_model() {
  return MNEME_DEFAULT_MODEL;
}

uint64_t remove_model(const StoredModel& model) {
  const fs::path root = models_folder();
  const fs::path relative = model.path.lexically_relative(root);
  require(!relative.empty() && *relative.begin() != "..", ErrorCode::invalid_argument,
          "{} is not in the model store {}", model.path.string(), root.string());
  std::error_code error;
  for (const fs::path& path : files_of(model)) {
    fs::remove_all(path, error);  // a symbolic link is removed, not what it points to
    require(!error, ErrorCode::io, "cannot remove {}: {}", path.string(), error.message());
  }
  for (fs::path folder = model.path.parent_path(); folder != root; folder = folder.parent_path())
    if (!fs::remove(folder, error)) break;  // not empty
  return model.bytes;
}

}  // namespace mneme::cli
