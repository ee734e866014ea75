// Probes: stages that show the inputs of projections to an observer (projection_probe.h). They write nothing
// that a later stage reads, so a probed pass gives the same bits as any other.
#include "model/projection_probe.h"
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

constexpr int64_t kProbeRows = 8;

class ProbeStage final : public Stage {
 public:
  // `parts`: of the attention before an output projection at decode, else null.
  ProbeStage(const ModelImpl& model, size_t index, ProbeSite site, const AttentionParts* parts)
      : model_(model), index_(index), site_(std::move(site)), parts_(parts) {}
  std::string describe() const override {
    std::string names;
    for (const ProbeSite::Reader& reader : site_.readers) names += (names.empty() ? "" : ", ") + reader.name;
    return fmt::format("probe             input of {} [{}]", names, site_.width);
  }
  int64_t tasks(const Step& step) const override { return (step.rows() + kProbeRows - 1) / kProbeRows; }

  void run(Step& step, int thread, int64_t task) const override {
    const int64_t begin = task * kProbeRows, end = std::min(begin + kProbeRows, step.rows());
    try {
      for (const Slice& slice : step.slices) {
        if (slice.observer == nullptr) continue;
        const int64_t last = std::min(end, slice.row + slice.count);
        for (int64_t row = std::max(begin, slice.row); row < last; ++row)
          slice.observer->see(index_, thread, slice.position + row - slice.row, input(step, thread, row));
      }
    } catch (...) {
      step.workspace.fail(std::current_exception());
    }
  }

 private:
  std::span<const float> input(Step& step, int thread, int64_t row) const {
    Workspace& ws = step.workspace;
    std::vector<float>& scratch = ws.threads[static_cast<size_t>(thread)].row;
    grow(scratch, site_.width);
    const auto width = static_cast<size_t>(site_.width);
    const LayerWeights& layer = model_.layers[site_.layer];
    switch (site_.input) {
      case ProjectionInput::mixer:
        return normed(ws, row, layer.attn_norm, scratch);
      case ProjectionInput::ffn:
        return normed(ws, row, layer.ffn_norm, scratch);
      case ProjectionInput::hidden:
        return {ws.gate.data() + row * site_.width, width};
      case ProjectionInput::output:
        break;
    }
    if (parts_ != nullptr) {
      parts_->merge(step, row, scratch.data());
      return {scratch.data(), width};
    }
    const float* attention = ws.attention.data() + row * site_.width;
    const std::vector<float>& norm = layer.mixers[site_.branch].out_norm;
    if (norm.empty()) return {attention, width};
    const auto dim = std::ssize(norm);
    for (int64_t c = 0; c < site_.width; c += dim)
      rms_norm(attention + c, norm.data(), eps(), dim, scratch.data() + c);
    return {scratch.data(), width};
  }

  std::span<const float> normed(const Workspace& ws, int64_t row, const std::vector<float>& weight,
                                std::vector<float>& scratch) const {
    rms_norm(ws.x.data() + row * site_.width, weight.data(), eps(), site_.width, scratch.data());
    return {scratch.data(), static_cast<size_t>(site_.width)};
  }
  float eps() const { return static_cast<float>(model_.config.norm.eps); }

  const ModelImpl& model_;
  const size_t index_;
  const ProbeSite site_;
  const AttentionParts* parts_;
};

std::string reader_name(const Linear& linear, size_t branch, size_t branches) {
  std::string name = linear.name;
  for (const std::string_view prefix : {"attn_", "ffn_"})
    if (name.starts_with(prefix)) name.erase(0, prefix.size());
  if (name == "output") name = "o";
  return branches > 1 ? fmt::format("{}.{}", branch, name) : name;
}

ProbeSite site_of(size_t layer, ProjectionInput input, std::vector<const Linear*> linears, size_t branch = 0,
                  size_t branches = 1) {
  ProbeSite site{layer, branch, input, linears[0]->w.cols, {}};
  for (const Linear* linear : linears)
    site.readers.push_back({reader_name(*linear, branch, branches), linear});
  return site;
}

}  // namespace

std::vector<ProbeSite> probe_sites(const ModelImpl& model) {
  std::vector<ProbeSite> sites;
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    const LayerWeights& w = model.layers[layer];
    for (size_t b = 0; b < w.mixers.size(); ++b) {
      sites.push_back(site_of(layer, ProjectionInput::mixer, w.mixers[b].inputs(), b, w.mixers.size()));
      sites.push_back(site_of(layer, ProjectionInput::output, {&w.mixers[b].o}, b, w.mixers.size()));
    }
    if (w.moe) {
      std::vector<const Linear*> readers{&w.moe->experts.front().gate, &w.moe->experts.front().up};
      if (w.moe->shared.gate.w.rows > 0)
        readers.insert(readers.end(), {&w.moe->shared.gate, &w.moe->shared.up});
      sites.push_back(site_of(layer, ProjectionInput::ffn, readers));
      continue;
    }
    sites.push_back(site_of(layer, ProjectionInput::ffn, {&w.gate, &w.up}));
    sites.push_back(site_of(layer, ProjectionInput::hidden, {&w.down}));
  }
  return sites;
}

StagePtr make_probe_stage(const ModelImpl& model, size_t index, const ProbeSite& site,
                          const AttentionParts* parts) {
  return std::make_unique<ProbeStage>(model, index, site, parts);
}

}  // namespace mneme
