// The model store: files and folders below models_folder(). A model's name is its path there, without
// ".gguf" and without the part number of a split file.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mneme::cli {

struct StoredModel {
  std::string name;            // "SmolLM2-135M-Instruct.Q4_1"
  std::filesystem::path path;  // a GGUF file (the first part of a split one) or a Hugging Face folder
  std::string type;            // "gguf" or "huggingface"
  uint64_t bytes = 0;          // on disk, all its files
};

/// The models of the store by name; empty if there is no store. What is still being fetched is left out.
std::vector<StoredModel> stored_models();
/// The stored model that `name` means: its whole name, its file name, or the last part of its name where only
/// one model has that. Throws Error(not_found) with the nearest name, Error(invalid_argument) if several fit.
StoredModel find_stored_model(const std::string& name);
/// What a MODEL argument means: a path to a GGUF file, a path to a Hugging Face folder, or a stored model. ""
/// is the default model. Throws Error(not_found) that lists where it was looked for.
std::filesystem::path resolve_model(const std::string& model);
/// Name of the model that is used where none is named.
std::string default_model();
/// Deletes the files of a stored model, and folders that it leaves empty; nothing outside the store. Returns
/// the bytes freed. Throws Error(io).
uint64_t remove_model(const StoredModel& model);

}  // namespace mneme::cli
