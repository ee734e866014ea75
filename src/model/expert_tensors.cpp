#include "model/expert_tensors.h"

#include <charconv>
#include <optional>
#include <unordered_map>

#include "core/fail.h"

namespace mneme {
namespace {

/// A tensor that is a piece of one of the source's, or the whole of it under another name or shape.
struct Piece {
  const TensorInfo* base = nullptr;
  uint64_t offset = 0;
  bool last = true;  // of its base: releases it
};

class ExpertTensors final : public TensorSource {
 public:
  explicit ExpertTensors(std::unique_ptr<TensorSource> source) : source_(std::move(source)) {}

  void add(TensorInfo info, Piece piece) {
    const auto [at, fresh] = index_.emplace(info.name, infos_.size());
    if (!fresh)
      fail(ErrorCode::corrupt, "tensor {} is there twice, as {} and as {}", info.name,
           pieces_[at->second].base->name, piece.base->name);
    infos_.push_back(std::move(info));
    pieces_.push_back(piece);
  }

  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(std::string_view name) const override {
    const auto at = index_.find(std::string(name));
    return at == index_.end() ? nullptr : &infos_[at->second];
  }
  Bytes data(const TensorInfo& tensor) const override {
    const Piece& piece = piece_of(tensor);
    return source_->data(*piece.base).subspan(piece.offset, tensor.bytes);
  }
  void release(const TensorInfo& tensor) const override {
    const Piece& piece = piece_of(tensor);
    if (piece.last) source_->release(*piece.base);
  }
  uint64_t file_bytes() const override { return source_->file_bytes(); }
  std::vector<fs::path> paths() const override { return source_->paths(); }
  const TensorSource& source() const { return *source_; }

 private:
  const Piece& piece_of(const TensorInfo& tensor) const {
    const auto at = index_.find(tensor.name);
    require(at != index_.end(), ErrorCode::not_found, "there is no tensor \"{}\"", tensor.name);
    return pieces_[at->second];
  }

  std::unique_ptr<TensorSource> source_;
  std::vector<TensorInfo> infos_;
  std::vector<Piece> pieces_;  // parallel to infos_
  std::unordered_map<std::string, size_t> index_;
};

/// "layers.7.mlp.gate.weight" at its place in a name: what stands before the number, the number, the rest.
struct LayerName {
  std::string_view before, rest;
  size_t layer = 0;
};

std::optional<LayerName> layer_name(std::string_view name, std::string_view word) {
  const size_t at = name.find(word);
  if (at == std::string_view::npos || (at > 0 && name[at - 1] != '.')) return {};
  LayerName out;
  out.before = name.substr(0, at + word.size());
  const std::string_view tail = name.substr(out.before.size());
  const auto [end, error] = std::from_chars(tail.data(), tail.data() + tail.size(), out.layer);
  const auto digits = static_cast<size_t>(end - tail.data());
  if (error != std::errc() || digits >= tail.size() || tail[digits] != '.') return {};
  out.rest = tail.substr(digits + 1);
  return out;
}

/// Adds the tensors of one layer. `block` is "blk.7." or "model.layers.7.".
class LayerSplitter {
 public:
  LayerSplitter(const FfnConfig& ffn, uint64_t d_model, std::string block, NameStyle style,
                ExpertTensors& out)
      : ffn_(ffn), d_(d_model), block_(std::move(block)), hf_(style == NameStyle::hugging_face), out_(out) {}

  void add(const TensorInfo& tensor, std::string_view rest) {
    if (!(hf_ ? add_hf(tensor, rest) : add_gguf(tensor, rest))) keep(tensor);
  }

 private:
  bool add_gguf(const TensorInfo& tensor, std::string_view rest) {
    if (rest == "ffn_gate_exps.weight") return stack(tensor, {"gate"}, ffn_.hidden, d_);
    if (rest == "ffn_up_exps.weight") return stack(tensor, {"up"}, ffn_.hidden, d_);
    if (rest == "ffn_gate_up_exps.weight") return stack(tensor, {"gate", "up"}, ffn_.hidden, d_);
    if (rest == "ffn_down_exps.weight") return stack(tensor, {"down"}, d_, ffn_.hidden);
    if (rest == "ffn_gate_inp_shexp.weight") return flat(tensor, block_ + std::string(rest));
    return false;
  }

  bool add_hf(const TensorInfo& tensor, std::string_view rest) {
    if (rest == "block_sparse_moe.gate.weight" || rest == "block_sparse_moe.router.layer.weight")
      return rename(tensor, "mlp.gate.weight");
    if (rest == "block_sparse_moe.input_linear.weight" || rest == "mlp.experts.gate_up_proj")
      return stack(tensor, {"gate", "up"}, ffn_.hidden, d_);
    if (rest == "block_sparse_moe.output_linear.weight" || rest == "mlp.experts.down_proj")
      return stack(tensor, {"down"}, d_, ffn_.hidden);
    if (rest == "shared_mlp.input_linear.weight") return shared_input(tensor);
    if (rest == "shared_mlp.output_linear.weight")
      return rename(tensor, "mlp.shared_expert.down_proj.weight");
    if (rest == "mlp.shared_expert_gate.weight") return flat(tensor, block_ + std::string(rest));
    constexpr std::string_view kPlural = "mlp.shared_experts.", kMixtral = "block_sparse_moe.experts.";
    if (rest.starts_with(kPlural))
      return rename(tensor, "mlp.shared_expert." + std::string(rest.substr(kPlural.size())));
    if (!rest.starts_with(kMixtral)) return false;
    const std::string_view tail = rest.substr(kMixtral.size());
    const size_t dot = tail.find('.');
    for (const auto& [theirs, ours] : {std::pair("w1", "gate"), {"w3", "up"}, {"w2", "down"}})
      if (dot != std::string_view::npos && tail.substr(dot + 1) == fmt::format("{}.weight", theirs))
        return rename(tensor, fmt::format("mlp.experts.{}.{}_proj.weight", tail.substr(0, dot), ours));
    return false;
  }

  std::string expert_name(const char* projection, uint32_t expert) const {
    return hf_ ? fmt::format("{}mlp.experts.{}.{}_proj.weight", block_, expert, projection)
               : expert_tensor_name(block_, projection, expert);
  }

  /// [experts, projections * rows, cols]: for each expert the projections one below the other.
  bool stack(const TensorInfo& tensor, const std::vector<const char*>& projections, uint64_t rows,
             uint64_t cols) {
    const std::vector<uint64_t> wanted{ffn_.experts, projections.size() * rows, cols};
    require(tensor.shape == wanted, ErrorCode::mismatch,
            "tensor {} has shape [{}], but the config asks for {} experts: [{}]", tensor.name,
            fmt::join(tensor.shape, ", "), ffn_.experts, fmt::join(wanted, ", "));
    const uint64_t pieces = ffn_.experts * projections.size(), bytes = tensor.bytes / pieces;
    for (uint64_t i = 0; i < pieces; ++i)
      out_.add(
          {expert_name(projections[i % projections.size()], static_cast<uint32_t>(i / projections.size())),
           tensor.type,
           {rows, cols},
           bytes},
          {&tensor, i * bytes, i + 1 == pieces});
    return true;
  }

  bool shared_input(const TensorInfo& tensor) {
    const std::vector<uint64_t> wanted{2 * uint64_t{ffn_.shared_width()}, d_};
    require(tensor.shape == wanted, ErrorCode::mismatch,
            "tensor {} has shape [{}], but the config asks for [{}]", tensor.name,
            fmt::join(tensor.shape, ", "), fmt::join(wanted, ", "));
    const uint64_t bytes = tensor.bytes / 2;
    for (const uint64_t i : {0, 1})
      out_.add({fmt::format("{}mlp.shared_expert.{}_proj.weight", block_, i == 0 ? "gate" : "up"),
                tensor.type,
                {ffn_.shared_width(), d_},
                bytes},
               {&tensor, i * bytes, i == 1});
    return true;
  }

  bool rename(const TensorInfo& tensor, const std::string& rest) {
    out_.add({block_ + rest, tensor.type, tensor.shape, tensor.bytes}, {&tensor});
    return true;
  }
  /// A row [1, d_model] as a vector.
  bool flat(const TensorInfo& tensor, const std::string& name) {
    const bool row = tensor.shape.size() == 2 && tensor.shape[0] == 1;
    out_.add({name, tensor.type, row ? std::vector{tensor.shape[1]} : tensor.shape, tensor.bytes}, {&tensor});
    return true;
  }
  void keep(const TensorInfo& tensor) { out_.add(tensor, {&tensor}); }

  const FfnConfig& ffn_;
  const uint64_t d_;
  const std::string block_;
  const bool hf_;
  ExpertTensors& out_;
};

}  // namespace

std::unique_ptr<TensorSource> split_experts(const ModelConfig& config, std::unique_ptr<TensorSource> source,
                                            NameStyle style) {
  bool any = false;
  for (const LayerConfig& layer : config.layers) any = any || layer.ffn.moe();
  if (!any) return source;
  auto out = std::make_unique<ExpertTensors>(std::move(source));
  const std::string_view word = style == NameStyle::gguf ? "blk." : "layers.";
  for (const TensorInfo& tensor : out->source().tensors()) {
    const auto at = layer_name(tensor.name, word);
    if (!at || at->layer >= config.layers.size() || !config.layers[at->layer].ffn.moe()) {
      out->add(tensor, {&tensor});
      continue;
    }
    const FfnConfig& ffn = config.layers[at->layer].ffn;
    LayerSplitter(ffn, config.d_model, fmt::format("{}{}.", at->before, at->layer), style, *out)
        .add(tensor, at->rest);
  }
  return out;
}

}  // namespace mneme
