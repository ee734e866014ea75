#include "convert/export_hf.h"

#include <fcntl.h>
#include <unistd.h>

#include "convert/describe_hf.h"
#include "convert/table_files.h"
#include "convert/tokenizer_to_json.h"
#include "convert/weights.h"
#include "core/fail.h"
#include "files/safetensors.h"

namespace mneme {
namespace {

using Ordered = nlohmann::ordered_json;

/// A new folder beside the target that becomes the target on commit() and disappears without it.
class AtomicFolder {
 public:
  explicit AtomicFolder(fs::path target) : target_(std::move(target)) {
    if (!target_.has_filename()) target_ = target_.parent_path();  // "folder/"
    check_new_folder(target_);
    std::error_code error;
    folder_ = target_;
    folder_ += fmt::format(".{}.partial", ::getpid());
    require(fs::create_directory(folder_, error), ErrorCode::io, "cannot create the folder {}: {}",
            folder_.string(), error ? error.message() : "it exists");
  }
  ~AtomicFolder() {
    std::error_code error;
    if (!done_) fs::remove_all(folder_, error);
  }
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const fs::path& path() const { return folder_; }
  void save(const char* name, const std::string& text) const {
    AtomicFile file(folder_ / name);
    file.write(text);
    file.commit();
  }
  void commit() {
    std::error_code error;
    fs::rename(folder_, target_, error);  // replaces an empty folder
    require(!error, ErrorCode::io, "cannot rename {} to {}: {}", folder_.string(), target_.string(),
            error.message());
    done_ = true;
    const fs::path parent = target_.has_parent_path() ? target_.parent_path() : fs::path(".");
    const int fd = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;  // the rename has succeeded; only its durability is the system's business
    ::fsync(fd);
    ::close(fd);
  }

 private:
  fs::path target_, folder_;
  bool done_ = false;
};

const char* torch_name(DType type) {
  return type == DType::f16 ? "float16" : type == DType::bf16 ? "bfloat16" : "float32";
}

std::string pretty(const Ordered& json) {
  return json.dump(2, ' ', false, Ordered::error_handler_t::replace) + "\n";
}

}  // namespace

void check_space(const fs::path& out, uint64_t bytes) {
  const fs::path folder = fs::absolute(out.has_filename() ? out : out.parent_path()).parent_path();
  std::error_code error;
  const auto space = fs::space(folder, error);
  require(error || space.available >= bytes, ErrorCode::io, "{} needs {} bytes, but only {} are free in {}",
          out.string(), bytes, static_cast<uint64_t>(space.available), folder.string());
}

void put_activation(const QuantizeOptions& options, ModelConfig& config) {
  for (size_t i = 0; i < options.activation.size(); ++i) config.layers[i].activation = options.activation[i];
}

void check_new_folder(const fs::path& out) {
  std::error_code error;
  require(!fs::exists(out, error) || (fs::is_directory(out, error) && fs::is_empty(out, error)),
          ErrorCode::invalid_argument,
          "{} exists and is not an empty folder; name another output or remove it", out.string());
}

uint64_t export_hf(const Checkpoint& in, const fs::path& out, DType type, const QuantizeOptions& options) {
  AtomicFolder folder(out);
  ModelConfig config = options.copy_tables ? copy_tables(in, folder.path()) : config_seen_from(in, out);
  put_activation(options, config);
  HfDescription description = describe_hf(config, torch_name(type));
  const auto plan = plan_weights(in, description.config, {type, options.pure, NameStyle::hugging_face});
  std::vector<SafetensorToWrite> tensors;
  uint64_t bytes = 0;
  for (const auto& tensor : plan) {
    bytes += tensor.target.bytes;
    tensors.push_back({tensor.target, [&in, &tensor, &options](AtomicFile& file) {
                         write_weight(in.tensors(), tensor, options.threads, file);
                       }});
  }
  const HfTokenizerFiles tokenizer = tokenizer_files(in);
  Ordered generation = {{"_from_model_config", true}};
  for (const auto& [key, value] : tokenizer.special_ids.items()) {
    description.json[key] = value;
    generation[key] = value;
  }
  check_space(out, bytes);
  folder.save("config.json", pretty(description.json));
  folder.save("generation_config.json",
              tokenizer.generation_config.empty() ? pretty(generation) : tokenizer.generation_config);
  if (!tokenizer.tokenizer.empty()) folder.save("tokenizer.json", tokenizer.tokenizer);
  if (!tokenizer.tokenizer_config.empty()) folder.save("tokenizer_config.json", tokenizer.tokenizer_config);
  write_safetensors(folder.path() / "model.safetensors", tensors, {{"format", "pt"}}, options.progress);
  uint64_t written = 0;
  for (const auto& entry : fs::directory_iterator(folder.path())) written += entry.file_size();
  folder.commit();
  return written;
}

}  // namespace mneme
