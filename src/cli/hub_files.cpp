#include "cli/hub_files.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>

#include "cli/gguf_parts.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/json.h"

namespace mneme::cli {
namespace {

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return out;
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 128 && text.front() != '.' && text.front() != '-' &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
         });
}

bool is_hex64(std::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

bool is_gguf_model(const HubFile& file) {
  const std::string name = upper(file.name);
  return file.name.ends_with(".gguf") && name.find("MMPROJ") == std::string::npos &&
         name.find("IMATRIX") == std::string::npos;
}

using Models = std::map<std::string, std::vector<HubFile>>;  // key without part -> its files in order

Models gguf_models(const std::vector<HubFile>& files) {
  Models models;
  for (const HubFile& file : files)
    if (is_gguf_model(file)) models[gguf_part(file.name).whole].push_back(file);
  for (auto& [key, parts] : models)
    std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return models;
}

std::string names_of(const Models& models) {
  std::string names;
  for (const auto& [key, parts] : models) names += (names.empty() ? "" : ", ") + key;
  return names;
}

// Fits most machines first; then what is nearest in quality.
const std::vector<HubFile>* preferred(const Models& models) {
  static constexpr std::array order{"Q4_K_M", "Q4_K_S", "Q4_K_L", "Q4_0", "Q4_1",   "Q5_K_M", "Q5_K_S",
                                    "Q5_0",   "Q5_1",   "Q6_K",   "Q8_0", "Q3_K_L", "Q3_K_M", "Q3_K_S",
                                    "Q2_K",   "BF16",   "F16",    "FP16", "F32"};
  for (const char* type : order)
    for (const auto& [key, parts] : models)
      if (upper(key).find(type) != std::string::npos) return &parts;
  return models.empty() ? nullptr : &models.begin()->second;
}

bool has_name(const std::vector<HubFile>& files, std::string_view name) {
  return std::any_of(files.begin(), files.end(), [&](const HubFile& file) { return file.name == name; });
}

// The small files beside the weights. The older form of a tokenizer is left where a tokenizer.json is.
bool belongs_to_folder(std::string_view name, const std::string& index, bool has_tokenizer_json) {
  static constexpr std::array wanted{"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                     "special_tokens_map.json", "chat_template.jinja"};
  if (name == index) return true;
  if (name == "vocab.json" || name == "merges.txt") return !has_tokenizer_json;
  return std::find(wanted.begin(), wanted.end(), name) != wanted.end();
}

bool is_shard(std::string_view name, const std::string& stem) {
  return name.starts_with(stem + "-") && name.find("-of-") != std::string_view::npos;
}

// Files of one format at the top of a repository: the shards if there are any, else the single file. Some
// repositories carry the same weights again in one file beside the shards.
std::vector<HubFile> weight_files(const std::vector<HubFile>& files, const std::string& stem,
                                  const std::string& suffix) {
  std::vector<HubFile> shards, single;
  for (const HubFile& file : files) {
    if (!file.name.ends_with(suffix) || file.name.find('/') != std::string::npos) continue;
    if (is_shard(file.name, stem)) shards.push_back(file);
    if (file.name == stem + suffix) single.push_back(file);
  }
  return shards.empty() ? single : shards;
}

std::vector<HubFile> folder_model(const std::vector<HubFile>& files, const std::string& repository) {
  const bool safe = std::any_of(files.begin(), files.end(), [](const HubFile& file) {
    return file.name.ends_with(".safetensors") && file.name.find('/') == std::string::npos;
  });
  const std::string stem = safe ? "model" : "pytorch_model", suffix = safe ? ".safetensors" : ".bin";
  std::vector<HubFile> weights = weight_files(files, stem, suffix);
  require(has_name(files, "config.json") && (safe || !weights.empty()), ErrorCode::not_found,
          "{} holds no model that Mneme reads: neither a .gguf file nor config.json with .safetensors or "
          "pytorch_model*.bin files",
          repository);
  require(!weights.empty(), ErrorCode::not_found,
          "{} has .safetensors files, but no model.safetensors; only whole models can be fetched",
          repository);
  const std::string index = stem + suffix + ".index.json";
  const bool has_tokenizer_json = has_name(files, "tokenizer.json");
  for (const HubFile& file : files)
    if (belongs_to_folder(file.name, index, has_tokenizer_json)) weights.push_back(file);
  for (const HubFile& file : files)
    if (file.name == "config.json") weights.push_back(file);  // it makes a folder a model, so it comes last
  return weights;
}

}  // namespace

HubReference parse_hub_reference(std::string_view text) {
  const std::string shape = "; a model is named hf:USER/REPO or hf:USER/REPO:FILE";
  if (!text.starts_with("hf:"))
    throw UsageError(fmt::format("\"{}\" does not begin with hf:{}", text, shape));
  std::string_view rest = text.substr(3);
  HubReference reference;
  if (const size_t colon = rest.find(':'); colon != std::string_view::npos) {
    reference.file = rest.substr(colon + 1);
    rest = rest.substr(0, colon);
    if (reference.file.empty())
      throw UsageError(fmt::format("\"{}\" names no file after the colon{}", text, shape));
  }
  const size_t slash = rest.find('/');
  reference.user = rest.substr(0, slash);
  reference.repo = slash == std::string_view::npos ? "" : rest.substr(slash + 1);
  if (!is_name(reference.user) || !is_name(reference.repo))
    throw UsageError(fmt::format("\"{}\" is not the name of a repository{}", text, shape));
  return reference;
}

void check_hub_file_name(std::string_view name) {
  const auto refuse = [&](const char* why) {
    std::string shown(name.substr(0, 80));
    std::replace_if(
        shown.begin(), shown.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
    fail(ErrorCode::corrupt, "the host lists a file named \"{}\", which {}; it is refused", shown, why);
  };
  if (name.empty() || name.size() > 512) refuse("is empty or too long");
  if (name.front() == '/') refuse("is an absolute path");
  for (const unsigned char c : name)
    if (c < 0x20 || c == 0x7f || c == '\\' || c == ':') refuse("has a character that paths must not have");
  size_t start = 0;
  while (start <= name.size()) {
    const size_t end = std::min(name.find('/', start), name.size());
    const std::string_view part = name.substr(start, end - start);
    if (part.empty()) refuse("has an empty folder name");
    if (part.front() == '.') refuse("has a part that begins with a dot");
    if (part.size() > 200) refuse("has a part that is too long");
    start = end + 1;
  }
}

std::vector<HubFile> parse_hub_listing(std::string_view json, const std::string& repository) {
  const Json document = parse_json(json, "the host's description of " + repository);
  const auto siblings = document.is_object() ? document.find("siblings") : document.end();
  require(document.is_object() && siblings != document.end() && siblings->is_array(), ErrorCode::corrupt,
          "the host's description of {} has no list \"siblings\"; is the endpoint a Hub?", repository);
  std::vector<HubFile> files;
  for (const Json& entry : *siblings) {
    const auto name = entry.is_object() ? entry.find("rfilename") : entry.end();
    if (!entry.is_object() || name == entry.end() || !name->is_string()) continue;
    HubFile file;
    file.name = name->get<std::string>();
    if (const auto size = entry.find("size"); size != entry.end() && size->is_number_unsigned())
      file.bytes = size->get<uint64_t>();
    if (const auto lfs = entry.find("lfs"); lfs != entry.end() && lfs->is_object())
      for (const char* key : {"sha256", "oid"})
        if (const auto hash = lfs->find(key);
            hash != lfs->end() && hash->is_string() && is_hex64(hash->get<std::string>()))
          file.sha256 = hash->get<std::string>();
    files.push_back(std::move(file));
  }
  return files;
}

std::vector<HubFile> choose_hub_files(const std::vector<HubFile>& files, const std::string& wanted,
                                      const std::string& repository) {
  const Models models = gguf_models(files);
  std::vector<HubFile> chosen;
  if (wanted.empty()) {
    const std::vector<HubFile>* best = preferred(models);
    chosen = best != nullptr ? *best : folder_model(files, repository);
  } else {
    std::vector<const std::vector<HubFile>*> matches;
    for (const auto& [key, parts] : models) {
      const bool exact = key == wanted || gguf_part(wanted).whole == key;  // also by the name of any one part
      if (exact) {
        matches = {&parts};
        break;
      }
      if (upper(key).find(upper(wanted)) != std::string::npos) matches.push_back(&parts);
    }
    if (matches.empty()) {
      const auto same = [&](const HubFile& file) { return file.name == wanted; };
      if (std::any_of(files.begin(), files.end(), same)) check_hub_file_name(wanted);
      fail(ErrorCode::not_found, "{} has no GGUF file \"{}\"; it has {}", repository, wanted,
           models.empty() ? "none" : names_of(models));
    }
    require(matches.size() == 1, ErrorCode::invalid_argument,
            "\"{}\" fits more than one file of {}; give one of {}", wanted, repository, names_of(models));
    chosen = *matches.front();
  }
  for (const HubFile& file : chosen) check_hub_file_name(file.name);
  return chosen;
}

}  // namespace mneme::cli
