#include "convert/attach_memory.h"

#include "convert/describe_gguf.h"
#include "convert/export_hf.h"
#include "convert/tokenizer_to_gguf.h"
#include "convert/weights.h"
#include "core/fail.h"
#include "files/gguf.h"
#include "model/checkpoint.h"
#include "model/import_gguf.h"
#include "model/load.h"
#include "model/load_tokenizer.h"
#include "model/model_memory.h"

namespace mneme {
namespace {

void check_outputs(const Checkpoint& in, const fs::path& pack, const fs::path& out) {
  std::error_code error;
  bool input = fs::equivalent(pack, out, error);
  for (const fs::path& path : in.tensors().paths()) input = input || fs::equivalent(path, out, error);
  require(!input, ErrorCode::invalid_argument, "{} is read to make it; name another output", out.string());
  require(!fs::is_directory(out, error), ErrorCode::invalid_argument,
          "{} is a folder; name the GGUF file to write", out.string());
}

/// Metadata and weights of the output without the modules.
class Base {
 public:
  explicit Base(const Checkpoint& in) : in_(in) {
    if (in.metadata() != nullptr) {
      description_.metadata = *in.metadata();
      for (const char* key : {"split.no", "split.count", "split.tensors.count"})
        description_.metadata.erase(key);
      description_.config = in.config();
      for (const TensorInfo& tensor : in.tensors().tensors())
        tensors_.push_back({tensor, [&in, &tensor](AtomicFile& file) {
                              file.write(in.tensors().data(tensor));
                              in.tensors().release(tensor);
                            }});
      return;
    }
    description_ = describe_gguf(in.config());
    put_tokenizer(in, description_.metadata);
    const DType type = in.at("token_embd.weight").type;
    plan_ = plan_weights(in, description_.config, {type, false, NameStyle::gguf});
    for (const PlannedTensor& tensor : plan_)
      tensors_.push_back({tensor.target, [this, &tensor](AtomicFile& file) {
                            write_weight(in_.tensors(), tensor, 0, file);
                          }});
  }
  Base(const Base&) = delete;
  Base& operator=(const Base&) = delete;

  ModelConfig& config() { return description_.config; }
  GgufMetadata& metadata() { return description_.metadata; }
  std::vector<GgufTensorToWrite>& tensors() { return tensors_; }

 private:
  const Checkpoint& in_;
  GgufDescription description_;
  std::vector<PlannedTensor> plan_;
  std::vector<GgufTensorToWrite> tensors_;
};

}  // namespace

AttachResult attach_memory(const fs::path& model, const fs::path& pack, const fs::path& out,
                           const AttachOptions& options) {
  const Checkpoint in = open_checkpoint(model);
  check_outputs(in, pack, out);
  LoadOptions how;
  how.memory = {{pack, Placement::mmap}};
  std::vector<OpenedMemory> packs = open_memories(how);
  const std::shared_ptr<const TensorSource> modules = packs.front().tensors;
  const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(in);

  Base base(in);
  ModelConfig& config = base.config();
  const Memories memories = attach_memories(config, model.string(), tokenizer.get(), std::move(packs), how,
                                            [&model] { return checkpoint_hash(model.string()); });
  require(memories.from_packs, ErrorCode::mismatch,
          "{} carries no modules that could be attached; this model's config names its table already",
          pack.string());
  AttachResult result;
  for (size_t layer = 0; layer < config.layers.size(); ++layer) {
    if (memories.module_tensors[layer] == nullptr) continue;
    result.layers.push_back(static_cast<uint32_t>(layer));
    const fs::path from = fs::absolute(out).lexically_normal().parent_path();
    config.tables.at(config.layers[layer].memory->table).file =
        fs::proximate(fs::absolute(pack).lexically_normal(), from).generic_string();
    const std::string prefix = fmt::format("blk.{}.engram_", layer);
    for (const TensorInfo& tensor : modules->tensors())
      if (tensor.name.starts_with(prefix))
        base.tensors().push_back(
            {tensor, [&modules, &tensor](AtomicFile& file) { file.write(modules->data(tensor)); }});
  }
  // Another program must not take it for a model without a memory.
  base.metadata().set("general.architecture", std::string("mneme"));
  base.metadata().set(kConfigKey, config.to_json());
  uint64_t bytes = 0;
  for (const GgufTensorToWrite& tensor : base.tensors()) bytes += tensor.info.bytes;
  check_space(out, bytes);
  write_gguf(out, base.metadata(), base.tensors(), options.progress);
  result.bytes = fs::file_size(out);
  return result;
}

}  // namespace mneme
