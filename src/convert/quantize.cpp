#include "convert/quantize.h"

#include "convert/describe_gguf.h"
#include "convert/export_hf.h"
#include "convert/table_files.h"
#include "convert/tokenizer_to_gguf.h"
#include "convert/weights.h"
#include "core/fail.h"
#include "files/gguf.h"
#include "model/checkpoint.h"
#include "model/import_gguf.h"
#include "simd/blocks.h"

namespace mneme {
namespace {

bool wants_folder(const fs::path& out, ModelFormat format) {
  std::error_code error;
  if (format != ModelFormat::automatic) return format == ModelFormat::hugging_face;
  return !out.has_filename() || fs::is_directory(out, error);
}

/// `stored`: of the embedding, for a type that is not named.
DType parse_type(const std::string& name, bool folder, DType stored) {
  const auto type = name.empty() ? stored : dtype_from_name(name);
  if (!type || (!name.empty() && !can_quantize(*type)))
    fail(ErrorCode::invalid_argument,
         "type \"{}\" cannot be written; q8_0, q4_0, q4_1, f16, bf16 and f32 can", name);
  const std::string known = name.empty() ? std::string(dtype_info(*type).name) : name;
  require(!folder || !dtype_info(*type).quantized, ErrorCode::invalid_argument,
          "a Hugging Face folder holds f32, f16 or bf16, not {}; name a .gguf file to write {}", known,
          known);
  return *type;
}

void check_activation(const ModelConfig& config, const QuantizeOptions& options) {
  require(options.activation.empty() || options.activation.size() == config.layers.size(),
          ErrorCode::invalid_argument, "{} activations for a model of {} layers", options.activation.size(),
          config.layers.size());
}

void check_not_same(const Checkpoint& in, const fs::path& out) {
  for (const fs::path& path : in.tensors().paths()) {
    std::error_code error;
    const bool same =
        fs::equivalent(path, out, error) || fs::equivalent(path, out / "model.safetensors", error);
    require(!same, ErrorCode::invalid_argument, "{} is the model that is read; name another output",
            out.string());
  }
}

/// Notes say where a model comes from; what it is stands in keys that are written from its config.
void check_notes(const QuantizeOptions& options, bool folder) {
  require(options.notes.empty() || !folder, ErrorCode::invalid_argument,
          "a Hugging Face folder has no place for the note {}; name a .gguf file to write",
          options.notes.empty() ? "" : options.notes.front().first);
  for (const auto& [key, text] : options.notes) {
    const bool ours = key == "general.architecture" || key == "general.alignment" ||
                      key == "general.file_type" || key == "general.quantization_version";
    require(key.starts_with("general.") && !ours, ErrorCode::invalid_argument,
            "\"{}\" cannot be set; keys such as general.name, general.license and general.description can",
            key);
  }
}

/// What llama.cpp's tools call the dominant type of a file.
uint64_t file_type(DType type) {
  switch (type) {
    case DType::f32:
      return 0;
    case DType::f16:
      return 1;
    case DType::q4_0:
      return 2;
    case DType::q4_1:
      return 3;
    case DType::q8_0:
      return 7;
    default:
      return 32;  // BF16
  }
}

uint64_t write_as_gguf(const Checkpoint& in, const fs::path& out, DType type,
                       const QuantizeOptions& options) {
  GgufDescription description;
  const fs::path beside = fs::absolute(out).parent_path();
  ModelConfig config = options.copy_tables ? copy_tables(in, beside) : config_seen_from(in, beside);
  put_activation(options, config);
  const bool as_stored = options.type.empty();
  if (in.metadata() != nullptr) {  // GGUF to GGUF: same tensors, same keys
    description.metadata = *in.metadata();
    for (const char* key : {"split.no", "split.count", "split.tensors.count"})
      description.metadata.erase(key);
    description.config = config;
    if (!config.tables.empty() || !options.activation.empty())
      description.metadata.set(kConfigKey, config.to_json());
  } else {
    description = describe_gguf(config);
    put_tokenizer(in, description.metadata);
  }
  if (!as_stored || in.metadata() == nullptr) description.metadata.set("general.file_type", file_type(type));
  if (!as_stored && dtype_info(type).quantized)
    description.metadata.set("general.quantization_version", uint64_t{2});
  for (const auto& [key, text] : options.notes) description.metadata.set(key, text);
  const auto plan = plan_weights(in, description.config, {type, options.pure, NameStyle::gguf, as_stored});
  std::vector<GgufTensorToWrite> tensors;
  uint64_t bytes = 0;
  for (const auto& tensor : plan) {
    bytes += tensor.target.bytes;
    tensors.push_back({tensor.target, [&in, &tensor, &options](AtomicFile& file) {
                         write_weight(in.tensors(), tensor, options.threads, file);
                       }});
  }
  const auto& freqs = description.rope_freqs;
  if (!freqs.empty())
    tensors.push_back({{"rope_freqs.weight", DType::f32, {freqs.size()}, freqs.size() * sizeof(float)},
                       [&freqs](AtomicFile& file) { file.write(std::as_bytes(std::span(freqs))); }});
  check_space(out, bytes);
  write_gguf(out, description.metadata, tensors, options.progress);
  return fs::file_size(out);
}

/// Returns the type of matrices.
DType check_arguments(const Checkpoint& in, const fs::path& out, bool folder,
                      const QuantizeOptions& options) {
  const DType type = parse_type(options.type, folder, in.at("token_embd.weight").type);
  check_notes(options, folder);
  check_activation(in.config(), options);
  check_not_same(in, out);
  return type;
}

}  // namespace

QuantizeResult quantize_model(const fs::path& in, const fs::path& out, const QuantizeOptions& options) {
  const bool folder = wants_folder(out, options.format);
  const Checkpoint checkpoint = open_checkpoint(in);
  const DType type = check_arguments(checkpoint, out, folder, options);
  QuantizeResult result;
  result.bytes_in = checkpoint.tensors().file_bytes();
  result.bytes_out =
      folder ? export_hf(checkpoint, out, type, options) : write_as_gguf(checkpoint, out, type, options);
  return result;
}

void check_quantize(const fs::path& in, const fs::path& out, const QuantizeOptions& options) {
  check_arguments(open_checkpoint(in), out, wants_folder(out, options.format), options);
  const fs::path target = out.has_filename() ? out : out.parent_path();
  const fs::path parent = fs::absolute(target).parent_path();
  std::error_code error;
  require(fs::is_directory(parent, error), ErrorCode::not_found, "there is no folder {} to write {} in",
          parent.string(), out.string());
}

}  // namespace mneme
