// The leading process's stages of experts that other processes hold (expert_group.h). Between the router and
// the sum of experts:
//
//   sort by expert | code | send | gather, experts of this process and the shared expert | collect | sum
//
// Rows leave before this process works on its own experts and on the shared one, and answers are awaited
// after: what the network takes is hidden behind that work. The rows of a large chunk go to a process in
// several requests, so that no answer is longer than ExpertGroup::most_answer().
#include <cstring>

#include "model/expert_rows.h"
#include "model/stages.h"

namespace mneme {
namespace {

constexpr int64_t kCodedRows = 8;  // of a task

class ExchangeStage : public Stage {
 public:
  ExchangeStage(const ModelImpl& model, size_t layer)
      : model_(model),
        layer_(layer),
        ffn_(model.config.layers[layer].ffn),
        moe_(*model.layers[layer].moe),
        group_(*model.expert_group),
        forms_(expert_input_forms(moe_)),
        coding_(choose_coding(group_.coding(), expert_inputs(forms_), layer)),
        d_(model.config.d_model) {}

 protected:
  ExpertRange of(uint32_t rank) const { return experts_of(rank, group_.size(), ffn_.experts); }
  static Workspace::Experts& experts(Step& step) { return step.workspace.experts; }
  LeavingRows& leaving(Step& step, uint32_t rank) const { return experts(step).leaving[rank]; }
  /// The rows of the request that follows the first `done` rows; none behind the last.
  std::span<const int64_t> request_after(const LeavingRows& leaving, size_t done, uint32_t rank) const {
    const uint64_t row_bytes = uint64_t{std::min(ffn_.top_k, of(rank).count())} * pair_bytes();
    const uint64_t most = std::max<uint64_t>(1, group_.most_answer() / row_bytes);
    return std::span(leaving.rows).subspan(done, std::min<uint64_t>(most, leaving.rows.size() - done));
  }
  /// Of an answer, for each (row, expert).
  size_t pair_bytes() const { return static_cast<size_t>(d_) * sizeof(float); }

  const ModelImpl& model_;
  const size_t layer_;
  const FfnConfig& ffn_;
  const MoeWeights& moe_;
  ExpertGroup& group_;
  const InputForms forms_;
  const RowCoding coding_;
  const int64_t d_;
};

// Rows that go to any process, in the numbers that the experts read.
class CodeRowsStage final : public ExchangeStage {
 public:
  using ExchangeStage::ExchangeStage;
  std::string describe() const override {
    return fmt::format("code              {} columns as {} for rows that leave", d_, to_string(coding_));
  }
  int64_t tasks(const Step& step) const override {
    return coding_ == RowCoding::floats ? 0 : (step.rows() + kCodedRows - 1) / kCodedRows;
  }
  void run(Step& step, int, int64_t task) const override {
    Workspace::Experts& ws = experts(step);
    const int64_t end = std::min((task + 1) * kCodedRows, step.rows());
    for (int64_t row = task * kCodedRows; row < end; ++row)
      if (leaves(ws.routing, row))
        prepare_row(forms_, step.workspace.input.f.data() + row * d_, row, d_, ws.coded);
  }

 private:
  bool leaves(const Routing& routing, int64_t row) const {
    for (int64_t place = row * ffn_.top_k; place < (row + 1) * ffn_.top_k; ++place)
      if (routing.place[static_cast<size_t>(place)] >= 0 &&
          !moe_.own.holds(routing.routes[static_cast<size_t>(place)].expert))
        return true;
    return false;
  }
};

class SendRowsStage final : public ExchangeStage {
 public:
  SendRowsStage(const ModelImpl& model, size_t layer) : ExchangeStage(model, layer) {
    first_ = true;
    for (size_t i = 0; i < layer; ++i) first_ = first_ && !model.layers[i].moe;
  }
  std::string describe() const override {
    return fmt::format("send              rows as {} to {} processes", to_string(coding_), group_.size() - 1);
  }
  int64_t tasks(const Step&) const override { return group_.size() - 1; }
  void run(Step& step, int, int64_t task) const override {
    const auto rank = static_cast<uint32_t>(task + 1);
    Workspace::Experts& ws = experts(step);
    if (task == 0)
      group_.count_tokens(first_, static_cast<uint64_t>(step.rows()),
                          static_cast<uint64_t>(ws.routing.pairs()));
    LeavingRows& all = leaving(step, rank);
    find_leaving(ws.routing, step.rows(), ffn_.top_k, of(rank), all);
    try {
      while (all.requested < all.rows.size()) {
        const std::span<const int64_t> rows = request_after(all, all.requested, rank);
        ExpertGroup::Sent sent;
        group_.peers().send(rank,
                            write_request(layer_, coding_, rows, ws.routing, ffn_.top_k, of(rank), ws.coded,
                                          step.workspace.input.f.data(), forms_.spikes.size(), d_, sent));
        all.requested += rows.size();
        group_.count_sent(sent);
      }
    } catch (...) {
      step.workspace.fail(std::current_exception());
    }
  }

 private:
  bool first_ = true;  // no layer before has experts
};

class CollectRowsStage final : public ExchangeStage {
 public:
  CollectRowsStage(const ModelImpl& model, size_t layer) : ExchangeStage(model, layer) {
    waits_for_device = true;
  }
  std::string describe() const override { return "collect           outputs of experts of other processes"; }
  int64_t tasks(const Step&) const override { return 1; }
  void run(Step& step, int, int64_t) const override {
    try {
      size_t awaited = 0;  // rows
      for (uint32_t rank = 1; rank < group_.size(); ++rank) awaited += leaving(step, rank).requested;
      while (awaited > 0) {
        const auto reply = group_.peers().receive();
        if (!reply) fail(ErrorCode::internal, "the run was finished in the middle of a pass");
        awaited -= take(step, *reply);
      }
    } catch (...) {
      step.workspace.fail(std::current_exception());
    }
  }

 private:
  /// Puts the outputs where their pairs are. Returns the rows that were answered.
  size_t take(Step& step, const Message& reply) const {
    LeavingRows& all = leaving(step, reply.from);
    Workspace::Experts& ws = experts(step);
    const ExpertRange range = of(reply.from);
    std::span<const int64_t> rows;
    if (all.answered < all.requested) rows = request_after(all, all.answered, reply.from);
    size_t bytes = 0;
    for (const int64_t row : rows)
      each_route(ws.routing, row, ffn_.top_k, range, [&](size_t) { bytes += pair_bytes(); });
    require(bytes > 0 && reply.bytes.size() == bytes, ErrorCode::corrupt,
            "process {} answered layer {} with {} bytes instead of {}", reply.from, layer_,
            reply.bytes.size(), bytes);
    group_.count_returned(bytes);
    const std::byte* from = reply.bytes.data();
    for (const int64_t row : rows)
      each_route(ws.routing, row, ffn_.top_k, range, [&](size_t place) {
        std::memcpy(ws.out.data() + ws.routing.place[place] * d_, from, pair_bytes());
        from += pair_bytes();
      });
    all.answered += rows.size();
    return rows.size();
  }
};

}  // namespace

void add_exchange_send_stages(const ModelImpl& model, size_t layer, std::vector<StagePtr>& list) {
  list.push_back(std::make_unique<CodeRowsStage>(model, layer));
  list.push_back(std::make_unique<SendRowsStage>(model, layer));
}
StagePtr make_exchange_collect_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<CollectRowsStage>(model, layer);
}

void size_exchange(const ModelImpl& model, const Step& step) {
  Workspace::Experts& ws = step.workspace.experts;
  ws.leaving.resize(model.expert_group->size());
  for (const LayerWeights& layer : model.layers)
    if (layer.moe)
      size_activations(expert_input_forms(*layer.moe), step.rows(), model.config.d_model, ws.coded, false);
}

}  // namespace mneme
