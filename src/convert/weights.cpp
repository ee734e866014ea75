#include "convert/weights.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "convert/parallel_rows.h"
#include "core/checked.h"
#include "core/fail.h"
#include "simd/blocks.h"

namespace mneme {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{8} << 20;  // of the target, read and written at once
constexpr float kMaxHalf = 65504.0f;

/// What a tensor's name says: "attn_q.weight" of the mixer of layer 7 (blk.7.attn_q.weight), or of one of its
/// branches (blk.7.mix1.attn_q.weight). Tensors outside the layers have no mixer.
struct MixerPart {
  size_t layer = 0, branch = 0;
  std::string_view part;
};

std::optional<MixerPart> mixer_part(const ModelConfig& config, std::string_view name) {
  const auto at = layer_tensor_name_of(name);
  if (!at || at->layer >= config.layers.size()) return {};
  MixerPart out{at->layer, 0, at->part};
  if (config.layers[out.layer].mixer.type != MixerType::parallel) return out;
  for (size_t b = 0; b < config.layers[out.layer].mixer.of.size(); ++b) {
    const std::string prefix = fmt::format("mix{}.", b);
    if (!out.part.starts_with(prefix)) continue;
    out.branch = b;
    out.part.remove_prefix(prefix.size());
    return out;
  }
  return {};  // of the layer, not of a branch
}

const RopeConfig& rope_of(const ModelConfig& config, const MixerConfig& mixer) {
  return mixer.rope ? *mixer.rope : config.rope;
}

std::vector<uint32_t> row_order(const ModelConfig& from, const ModelConfig& to, const std::string& name) {
  const auto at = mixer_part(from, name);
  if (!at) return {};
  const MixerConfig& mixer = from.layers[at->layer].mixer.branches()[at->branch];
  const MixerConfig& target = to.layers[at->layer].mixer.branches()[at->branch];
  if (!mixer.softmax()) return {};  // recurrences rotate nothing
  const std::string_view part = at->part;
  uint32_t heads = 0;
  if (part == "attn_q.weight" || part == "attn_q.bias")
    heads = mixer.heads;
  else if (part == "attn_k.weight" || part == "attn_k.bias")
    heads = mixer.kv_heads;
  else if (part == "attn_q_norm.weight")
    heads = mixer.qk_norm_over == QkNormOver::all ? mixer.heads : 1;
  else if (part == "attn_k_norm.weight")
    heads = mixer.qk_norm_over == QkNormOver::all ? mixer.kv_heads : 1;
  if (heads == 0) return {};
  const RopeConfig& rope = rope_of(from, mixer);
  return rope_row_order(heads, mixer.head_dim, rope.dims, rope.style, rope_of(to, target).style);
}

// Norms of the model's own kind; those of an Engram module have an offset of their own.
bool is_norm(std::string_view name) {
  return name.ends_with("norm.weight") && name.find(".engram_") == std::string_view::npos;
}

DType target_type(const TensorInfo& source, const std::string& name, const WeightPlanOptions& options) {
  if (source.shape.size() < 2 || name.ends_with(".engram_conv.weight")) return DType::f32;  // small
  if (name.ends_with(".ffn_gate_inp.weight"))
    return DType::f32;  // a router: small, and a choice turns on little
  if (name.ends_with(".attn_gate_b.weight") || name == "sink_embd.weight") return DType::f32;
  if (options.as_stored) return source.type;
  DType type = options.type;
  const bool four_bits = type == DType::q4_0 || type == DType::q4_1;
  if (four_bits && !options.pure && (name == "token_embd.weight" || name == "output.weight"))
    type = DType::q8_0;
  return source.shape.back() % dtype_info(type).block_size == 0 ? type : DType::f16;
}

uint64_t bytes_of(const TensorInfo& tensor) {
  const auto& info = dtype_info(tensor.type);
  return checked_mul(tensor.values() / info.block_size, info.block_bytes, "size of a tensor");
}

void check_values(DType type, const std::vector<float>& row) {
  const float most = type == DType::f16 ? kMaxHalf : std::numeric_limits<float>::max();
  bool ok = true;
  for (const float v : row) ok &= std::fabs(v) <= most;  // false for a NaN
  if (ok) return;
  for (const float v : row)
    require(std::fabs(v) <= most, ErrorCode::corrupt,
            "the value {} does not fit; {} holds finite values up to {:.5g}", v, dtype_info(type).name, most);
}

/// Joins an expert's matrix with those of the experts before it, in one tensor [experts, rows, cols].
void add_to_stack(const ExpertTensorName& name, PlannedTensor tensor, std::vector<PlannedTensor>& out) {
  const std::string stacked = name.stacked();
  const auto same = [&](const PlannedTensor& t) { return t.target.name == stacked; };
  const auto at = std::find_if(out.end() - std::min<ptrdiff_t>(3, std::ssize(out)), out.end(), same);
  if (at == out.end()) {
    tensor.target.name = stacked;
    tensor.target.shape.insert(tensor.target.shape.begin(), 1);
    out.push_back(std::move(tensor));
    return;
  }
  require(at->target.type == tensor.target.type, ErrorCode::unsupported,
          "tensor {}: the experts of a layer would become {} and {}, but a stack has one type",
          tensor.source->name, dtype_info(at->target.type).name, dtype_info(tensor.target.type).name);
  at->more.push_back(tensor.source);
  at->target.shape[0] += 1;
  at->target.bytes = checked_add(at->target.bytes, tensor.target.bytes, "size of a tensor");
}

}  // namespace

std::vector<uint32_t> rope_row_order(uint32_t heads, uint32_t head_dim, uint32_t dims, RopeConfig::Style from,
                                     RopeConfig::Style to) {
  if (from == to) return {};
  const uint32_t turned = dims == 0 ? head_dim : dims;
  std::vector<uint32_t> order(size_t{heads} * head_dim);
  std::iota(order.begin(), order.end(), 0u);
  for (uint32_t h = 0; h < heads; ++h) {
    for (uint32_t i = 0; i < turned / 2; ++i) {
      const uint32_t base = h * head_dim, pair = base + 2 * i, low = base + i, high = base + i + turned / 2;
      if (to == RopeConfig::Style::interleaved) {
        order[pair] = low;
        order[pair + 1] = high;
      } else {
        order[low] = pair;
        order[high] = pair + 1;
      }
    }
  }
  return order;
}

std::vector<PlannedTensor> plan_weights(const Checkpoint& in, const ModelConfig& target,
                                        const WeightPlanOptions& options) {
  std::vector<PlannedTensor> out;
  const ModelConfig& from = in.config();
  for (const ExpectedTensor& expected : expected_tensors(target)) {
    PlannedTensor tensor;
    tensor.source = &in.at(expected.name);
    tensor.target.name =
        options.names == NameStyle::gguf ? expected.name : hf_tensor_name(target, expected.name);
    tensor.target.type = target_type(*tensor.source, expected.name, options);
    tensor.target.shape = tensor.source->shape;
    tensor.target.bytes = bytes_of(tensor.target);
    tensor.order = row_order(from, target, expected.name);
    if (is_norm(expected.name))
      tensor.add = static_cast<float>(from.norm.weight_offset - target.norm.weight_offset);
    const auto expert = options.names == NameStyle::gguf ? expert_tensor_name_of(expected.name)
                                                         : std::optional<ExpertTensorName>();
    if (expert)
      add_to_stack(*expert, std::move(tensor), out);
    else
      out.push_back(std::move(tensor));
  }
  if (in.style() != NameStyle::gguf || options.names != NameStyle::gguf) return out;
  for (const std::string& name : in.leftovers()) {
    PlannedTensor tensor;
    tensor.source = in.tensors().find(name);
    tensor.target = *tensor.source;
    out.push_back(std::move(tensor));
  }
  return out;
}

namespace {

/// Writes `from`, which becomes `to` or, of a stack, one of its matrices.
void write_one(const TensorSource& in, const PlannedTensor& tensor, const TensorInfo& from, TensorInfo to,
               int threads, AtomicFile& out) {
  to.bytes /= tensor.more.size() + 1;
  const Bytes source = in.data(from);
  // A reordered vector is handled as a matrix of single values.
  const bool vector = from.shape.size() < 2 && !tensor.order.empty() && dtype_info(from.type).block_size == 1;
  require(vector || tensor.order.empty() || from.shape.size() > 1, ErrorCode::unsupported,
          "tensor {} is a vector of type {}; one that is to be reordered must be F32, F16 or BF16", from.name,
          dtype_info(from.type).name);
  const uint64_t width = vector || from.shape.empty() ? 1 : from.shape.back();
  const uint64_t rows = from.values() / width;
  const uint64_t source_row = source.size() / rows, target_row = to.bytes / rows;
  const bool copy = from.type == to.type && tensor.add == 0;
  const auto convert_row = [&](uint64_t row, std::byte* dst, std::vector<float>& values) {
    const std::byte* src = source.data() + (tensor.order.empty() ? row : tensor.order[row]) * source_row;
    if (copy) {
      std::copy_n(src, source_row, dst);
      return;
    }
    values.resize(width);
    dequantize_row(from.type, src, values.data(), width);
    for (float& v : values) v += tensor.add;
    check_values(to.type, values);
    quantize_row(to.type, values.data(), dst, width);
  };
  try {
    const uint64_t step = std::max<uint64_t>(1, kChunkBytes / target_row);
    std::vector<std::byte> chunk;
    for (uint64_t first = 0; first < rows; first += step) {
      const uint64_t count = std::min(step, rows - first);
      chunk.resize(count * target_row);
      parallel_rows(count, threads, [&](uint64_t begin, uint64_t end) {
        std::vector<float> values;
        for (uint64_t r = begin; r < end; ++r) convert_row(first + r, chunk.data() + r * target_row, values);
      });
      out.write(chunk);
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::io) throw;
    fail(error.code(), "tensor {}: {}", from.name, error.what());
  }
  in.release(from);
}

}  // namespace

void write_weight(const TensorSource& in, const PlannedTensor& tensor, int threads, AtomicFile& out) {
  write_one(in, tensor, *tensor.source, tensor.target, threads, out);
  for (const TensorInfo* next : tensor.more) write_one(in, tensor, *next, tensor.target, threads, out);
}

}  // namespace mneme
