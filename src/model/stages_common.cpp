// Stages of both lists: token embedding (with the rotary angles of the pass), norm of a branch, and the head.
#include <cmath>

#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

class EmbedStage final : public Stage {
 public:
  explicit EmbedStage(const ModelImpl& model) : model_(model) {}
  std::string describe() const override {
    return fmt::format("embed             token_embd [{}x{}] {}, rotary angles", model_.embedding.rows,
                       model_.embedding.cols, packed_layout(model_.embedding.type).name);
  }
  int64_t tasks(const Step& step) const override { return step.rows(); }

  void run(Step& step, int, int64_t row) const override {
    Workspace& ws = step.workspace;
    const int64_t d = model_.config.d_model;
    float* x = ws.x.data() + row * d;
    if (step.embeddings != nullptr)
      std::copy_n(step.embeddings + row * d, d, x);
    else
      embed(step.ids[static_cast<size_t>(row)], x);
    rotary_angles(step, row, position_of(step, row));
  }

 private:
  void embed(TokenId id, float* x) const {
    const int64_t d = model_.config.d_model;
    unpack_row(model_.embedding, id, 0, d, x);
    const auto scale = static_cast<float>(model_.config.embedding_scale);
    if (scale != 1.0f)
      for (int64_t i = 0; i < d; ++i) x[i] *= scale;
  }

  static int64_t position_of(const Step& step, int64_t row) {
    for (const Slice& slice : step.slices)
      if (row >= slice.row && row < slice.row + slice.count) return slice.position + row - slice.row;
    return 0;
  }

  // cos and sin of position * frequency, in the order that every layer of a rope table reads.
  void rotary_angles(Step& step, int64_t row, int64_t position) const {
    int64_t table_start = 0;
    for (const RopeTable& rope : model_.ropes) {
      const auto pairs = static_cast<int64_t>(rope.inverse_frequencies.size());
      float* cos = step.workspace.cos.data() + table_start + row * pairs;
      float* sin = step.workspace.sin.data() + table_start + row * pairs;
      for (int64_t i = 0; i < pairs; ++i) {
        // The angle is rounded to float as in the reference implementations; its cosine is exact.
        const double angle = static_cast<float>(position) * rope.inverse_frequencies[static_cast<size_t>(i)];
        cos[i] = static_cast<float>(std::cos(angle)) * rope.attention_factor;
        sin[i] = static_cast<float>(std::sin(angle)) * rope.attention_factor;
      }
      table_start += step.rows() * pairs;
    }
  }
  const ModelImpl& model_;
};

// x += norm(branch)
class PostNormStage final : public Stage {
 public:
  PostNormStage(const ModelImpl& model, const std::vector<float>& weight) : model_(model), weight_(weight) {}
  std::string describe() const override {
    return fmt::format("norm+residual     x += rms_norm(branch) [{}]", model_.config.d_model);
  }
  int64_t tasks(const Step& step) const override { return step.rows(); }
  void run(Step& step, int, int64_t row) const override {
    const int64_t d = model_.config.d_model;
    float* branch = step.workspace.branch.data() + row * d;
    rms_norm(branch, weight_.data(), static_cast<float>(model_.config.norm.eps), d, branch);
    add_to(step.workspace.x.data() + row * d, branch, d);
  }

 private:
  const ModelImpl& model_;
  const std::vector<float>& weight_;
};

// x += w0 norm0(branch 0) + w1 norm1(branch 1)
class BranchesStage final : public Stage {
 public:
  BranchesStage(const ModelImpl& model, size_t layer) : model_(model), mixers_(model.layers[layer].mixers) {
    for (const MixerWeights& mixer : mixers_) {
      std::vector<float>& norm = norms_.emplace_back(mixer.branch_norm);
      for (float& value : norm) value *= mixer.branch_weight;
    }
  }
  std::string describe() const override {
    std::string sum;
    for (const MixerWeights& mixer : mixers_)
      sum += fmt::format("{}{:.3g} rms_norm(branch)", sum.empty() ? "" : " + ", mixer.branch_weight);
    return fmt::format("norms+residual    x += {} [{}]", sum, model_.config.d_model);
  }
  int64_t tasks(const Step& step) const override { return step.rows(); }
  void run(Step& step, int, int64_t row) const override {
    const int64_t d = model_.config.d_model;
    for (size_t b = 0; b < norms_.size(); ++b) {
      float* branch = step.workspace.branch.data() + (static_cast<int64_t>(b) * step.rows() + row) * d;
      rms_norm(branch, norms_[b].data(), static_cast<float>(model_.config.norm.eps), d, branch);
      add_to(step.workspace.x.data() + row * d, branch, d);
    }
  }

 private:
  const ModelImpl& model_;
  const std::vector<MixerWeights>& mixers_;
  std::vector<std::vector<float>> norms_;  // [branch][d_model], times the branch's weight
};

// logits = cap(scale * head(norm(x))) of the rows that want them
class HeadStage final : public Stage {
 public:
  explicit HeadStage(const ModelImpl& model) : model_(model), tasks_({&model.head}, model.pool->size(), 24) {
    forms_.add(model.head);
  }
  std::string describe() const override {
    return fmt::format("norm+head         {}", describe_linear(model_.head));
  }
  int64_t tasks(const Step& step) const override { return step.logit_rows.empty() ? 0 : tasks_.count(); }

  void begin(Step& step, int thread) const override {
    Workspace::Thread& mine = step.workspace.threads[static_cast<size_t>(thread)];
    const int64_t d = model_.config.d_model, n = count(step);
    size_activations(forms_, n, d, mine.input, false);
    grow(mine.row, d);
    for (int64_t i = 0; i < n; ++i) {
      rms_norm(step.workspace.x.data() + step.logit_rows[static_cast<size_t>(i)] * d,
               model_.output_norm.data(), static_cast<float>(model_.config.norm.eps), d, mine.row.data());
      prepare_row(forms_, mine.row.data(), i, d, mine.input);
    }
  }

  void run(Step& step, int thread, int64_t task) const override {
    const auto range = tasks_.range(task);
    const int64_t vocab = model_.config.vocab, n = count(step);
    apply_linear(model_.head, step.workspace.threads[static_cast<size_t>(thread)].input, range.begin,
                 range.end, 0, n, step.logits, vocab);
    const auto scale = static_cast<float>(model_.config.logit_scale);
    const auto cap = static_cast<float>(model_.config.logit_softcap);
    if (scale == 1.0f && cap == 0.0f) return;
    const int64_t begin = range.begin * kTileRows, end = std::min(range.end * kTileRows, vocab);
    for (int64_t i = 0; i < n; ++i) {
      float* logits = step.logits + i * vocab;
      for (int64_t v = begin; v < end; ++v) logits[v] *= scale;
      if (cap > 0) softcap(logits + begin, cap, end - begin);
    }
  }

 private:
  static int64_t count(const Step& step) { return static_cast<int64_t>(step.logit_rows.size()); }
  const ModelImpl& model_;
  TileTasks tasks_;
  InputForms forms_;
};

}  // namespace

StagePtr make_embed_stage(const ModelImpl& model) {
  return std::make_unique<EmbedStage>(model);
}
StagePtr make_post_norm_stage(const ModelImpl& model, const std::vector<float>& weight) {
  return std::make_unique<PostNormStage>(model, weight);
}
StagePtr make_branches_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<BranchesStage>(model, layer);
}
StagePtr make_head_stage(const ModelImpl& model) {
  return std::make_unique<HeadStage>(model);
}

}  // namespace mneme
