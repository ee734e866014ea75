#include "model/checkpoint.h"

#include <algorithm>
#include <array>
#include <fstream>

#include "core/fail.h"
#include "core/json_fields.h"
#include "files/safetensors.h"
#include "files/torch_checkpoint.h"
#include "model/expert_tensors.h"
#include "model/gla_swa.h"
#include "model/import_gguf.h"
#include "model/import_hf.h"

namespace mneme {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;

/// Names in a folder, sorted; at most 1,000 of them.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> out;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end && out.size() < 1000;
       it.increment(error))
    out.push_back(it->path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

[[noreturn]] void fail_not_found(const fs::path& path) {
  const fs::path parent = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code error;
  if (!fs::is_directory(parent, error))
    fail(ErrorCode::not_found, "{} does not exist, and neither does its folder", path.string());
  const std::string nearest = nearest_name(path.filename().string(), names_in(parent));
  if (nearest.empty()) fail(ErrorCode::not_found, "{} does not exist", path.string());
  fail(ErrorCode::not_found, "{} does not exist; did you mean {}?", path.string(),
       (path.has_parent_path() ? parent / nearest : fs::path(nearest)).string());
}

bool is_pickle(const std::string& name) {
  return name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") || name.ends_with(".ckpt");
}

[[noreturn]] void fail_pickle(const fs::path& path) {
  fail(
      ErrorCode::unsupported,
      "{} is a PyTorch checkpoint; give a folder that holds config.json and pytorch_model.bin, or its shards "
      "with pytorch_model.bin.index.json",
      path.string());
}

/// The weights of a Hugging Face folder: safetensors if there are any, else torch's own format.
std::unique_ptr<TensorSource> open_folder(const fs::path& folder, LoadMode mode) {
  const std::vector<std::string> names = names_in(folder);
  const bool safe = std::any_of(names.begin(), names.end(),
                                [](const std::string& name) { return name.ends_with(".safetensors"); });
  if (safe) return open_safetensors_folder(folder, mode);
  if (has_torch_checkpoint(folder)) return open_torch_folder(folder, mode);
  for (const std::string& name : names)
    if (is_pickle(name)) fail_pickle(folder / name);
  return open_safetensors_folder(folder, mode);  // says what is missing
}

[[noreturn]] void fail_no_config(const fs::path& folder) {
  const std::vector<std::string> names = names_in(folder);
  for (const std::string& name : names)
    if (name.ends_with(".gguf"))
      fail(ErrorCode::not_found, "{} has no config.json; did you mean the file {}?", folder.string(),
           (folder / name).string());
  for (const std::string& name : names)
    if (is_pickle(name)) fail_pickle(folder / name);
  fail(ErrorCode::not_found,
       "{} has no config.json; a Hugging Face folder holds config.json, *.safetensors or pytorch_model*.bin, "
       "and tokenizer.json",
       folder.string());
}

/// Refuses, by name or content, a file that is clearly something other than GGUF.
void check_is_gguf(const fs::path& path) {
  std::array<char, 4> magic{};
  std::ifstream in(path, std::ios::binary);
  require(in.good(), ErrorCode::io, "cannot open {}; is it readable?", path.string());
  in.read(magic.data(), magic.size());
  if (in.gcount() == 4 && std::string_view(magic.data(), 4) == "GGUF") return;
  const std::string name = path.filename().string();
  if (is_pickle(name)) fail_pickle(path);
  if (name.ends_with(".safetensors") || name == "config.json")
    fail(ErrorCode::unsupported, "{} is part of a Hugging Face folder; give the folder itself",
         path.string());
  require(!name.ends_with(".gguf"), ErrorCode::corrupt,
          "{} is not a GGUF file: it does not begin with \"GGUF\"", path.string());
  fail(ErrorCode::unsupported, "{} is neither a GGUF file nor a Hugging Face folder", path.string());
}

}  // namespace

const TensorInfo* Checkpoint::find(std::string_view canonical) const {
  const auto it = match_.by_name.find(canonical);
  return it == match_.by_name.end() ? nullptr : it->second;
}

const TensorInfo& Checkpoint::at(std::string_view canonical) const {
  const TensorInfo* info = find(canonical);
  require(info != nullptr, ErrorCode::not_found, "{} has no tensor {}", path_.string(), canonical);
  return *info;
}

const TensorInfo* Checkpoint::scales_of(const TensorInfo& weight) const {
  return rounded_ == nullptr ? nullptr : rounded_->scales_of(weight);
}

std::string Checkpoint::folder_file(std::string_view name) const {
  std::error_code error;
  if (style_ == NameStyle::gguf || !fs::exists(path_ / name, error)) return {};
  return read_text_file(path_ / name);
}

Checkpoint open_checkpoint(const fs::path& path, LoadMode mode) {
  std::error_code error;
  if (!fs::exists(path, error)) {
    require(!error || error == std::errc::no_such_file_or_directory, ErrorCode::io, "cannot look at {}: {}",
            path.string(), error.message());
    fail_not_found(path);
  }
  Checkpoint out;
  out.path_ = path;
  const bool folder = fs::is_directory(path, error);
  const fs::path config_path = path / "config.json";
  if (folder) {
    if (!fs::exists(config_path, error)) fail_no_config(path);
    out.style_ = NameStyle::hugging_face;
    out.tensors_ = open_folder(path, mode);
  } else {
    check_is_gguf(path);
    std::unique_ptr<GgufFile> file = GgufFile::open(path, mode);
    out.metadata_ = &file->metadata();
    out.tensors_ = std::move(file);
  }
  try {
    if (folder && has_gla_swa_names(*out.tensors_) && has_weight_scales(*out.tensors_)) {
      auto rounded = std::make_unique<RoundedWeights>(std::move(out.tensors_));
      out.rounded_ = rounded.get();
      out.tensors_ = std::move(rounded);
    }
    out.config_ = folder ? config_from_hf(read_text_file(config_path, kMaxConfigBytes), out.tensors_.get())
                         : config_from_gguf(*out.metadata_, *out.tensors_);
    out.tensors_ = split_experts(out.config_, std::move(out.tensors_), out.style_);
    out.match_ = match_tensors(out.config_, *out.tensors_, out.style_);
  } catch (const Error& refused) {
    fail(refused.code(), "{}: {}", path.string(), refused.what());
  }
  if (folder && out.config_.name.empty())
    out.config_.name = fs::absolute(path, error).lexically_normal().filename().string();
  return out;
}

Checkpoint changed_checkpoint(Checkpoint in, ModelConfig config, const ChangeTensors& change) {
  in.config_ = std::move(config);
  in.tensors_ = change(std::move(in.tensors_));
  in.match_ = match_tensors(in.config_, *in.tensors_, in.style_);
  return in;
}

}  // namespace mneme
