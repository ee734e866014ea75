// The model store: files and folders below models_folder(). A model's name is its path there, without
// ".gguf".
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace mneme::cli {

struct StoredModel {
  std::string name;            // "SmolLM2-135M-Instruct.Q4_1"
  std::filesystem::path path;  // a GGUF file or a Hugging Face folder
  std::string type;            // "gguf" or "huggingface"
};

/// The models of the store by name; empty if there is no store.
std::vector<StoredModel> stored_models();
/// What a MODEL argument means: a path to a GGUF file, a path to a Hugging Face folder, or the name of a
/// stored model. Throws Error(not_found) that lists where it was looked for.
std::filesystem::path resolve_model(const std::string& model);

}  // namespace mneme::cli
