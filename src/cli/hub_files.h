// Names on a Hub-compatible host: what "hf:USER/REPO:FILE" means, which files a repository lists, and which
// of them make up one model. Nothing here touches the network or the disk.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mneme::cli {

/// "hf:USER/REPO" or "hf:USER/REPO:FILE". FILE is a file name, or a part of one that only one model has
/// ("Q4_K_M").
struct HubReference {
  std::string user, repo, file;
  std::string repository() const { return user + "/" + repo; }
};
/// Throws UsageError.
HubReference parse_hub_reference(std::string_view text);

/// A file as the host lists it; what it does not tell stays empty.
struct HubFile {
  std::string name;  // below the repository, with '/'
  std::optional<uint64_t> bytes;
  std::string sha256;  // 64 hex digits or ""
};

/// The name comes from another machine and becomes a path here: throws Error(corrupt) for anything that could
/// leave the folder or confuse a terminal (absolute, "..", empty parts, back-slashes, control characters).
void check_hub_file_name(std::string_view name);

/// Reads the answer of /api/models/USER/REPO. Throws Error(corrupt). Files with refused names are left out
/// unless they are asked for (see choose_hub_files).
std::vector<HubFile> parse_hub_listing(std::string_view json, const std::string& repository);

/// The files of one model, in the order in which to fetch them: all parts of one GGUF file, or the weights of
/// a Hugging Face folder followed by its JSON files, config.json last (a folder counts as a model when it has
/// that). Without `wanted`, a GGUF of middle size is preferred (Q4_K_M first). Throws Error(not_found) that
/// lists what there is, Error(corrupt) for a refused name.
std::vector<HubFile> choose_hub_files(const std::vector<HubFile>& files, const std::string& wanted,
                                      const std::string& repository);

}  // namespace mneme::cli
