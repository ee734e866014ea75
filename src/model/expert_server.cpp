#include "model/expert_server.h"

#include <utility>

#include "model/expert_rows.h"
#include "model/load.h"
#include "model/stages.h"

namespace mneme {

ExpertServer::ExpertServer(const std::string& path, const LoadOptions& options)
    : model_(load_model(path, options, {})), stages_(model_->layers.size()) {
  workspace_.threads.resize(static_cast<size_t>(model_->pool->size()));
  for (size_t layer = 0; layer < stages_.size(); ++layer)
    if (model_->layers[layer].moe) add_served_stages(*model_, layer, stages_[layer]);
}
ExpertServer::~ExpertServer() = default;

void ExpertServer::serve() {
  Peers& peers = model_->expert_group->peers();
  while (const auto message = peers.receive()) peers.send(message->from, answer(*message));
}

MessageBytes ExpertServer::answer(const Message& message) {
  MessageReader in(message.bytes, fmt::format("a request of process {}", message.from));
  Workspace::Experts& ws = workspace_.experts;
  const RequestHead head = read_request_head(in, *model_, ws.routing);
  const FfnConfig& ffn = model_->config.layers[head.layer].ffn;
  const MoeWeights& moe = *model_->layers[head.layer].moe;
  const int64_t d = model_->config.d_model;
  if (std::ssize(ids_) < head.rows) ids_.resize(static_cast<size_t>(head.rows));
  Step step{*model_, workspace_, {}, std::span(std::as_const(ids_)).first(static_cast<size_t>(head.rows)),
            {},      nullptr,    {}, nullptr};
  ws.routing.sort(head.rows, ffn);
  size_served_experts(*model_, head.layer, ws.routing.pairs(), ws);
  read_request_rows(in, head, expert_input_forms(moe), ws.routing, ffn.top_k, d, ws.input);
  in.end();
  walk_stages(*model_->pool, stages_[head.layer], step);
  const size_t pair_bytes = static_cast<size_t>(d) * sizeof(float);
  MessageWriter reply;
  reply.reserve(static_cast<size_t>(ws.routing.pairs()) * pair_bytes);
  for (int64_t place = 0; place < head.rows * ffn.top_k; ++place)
    if (const int64_t pair = ws.routing.place[static_cast<size_t>(place)]; pair >= 0)
      reply.raw(ws.out.data() + pair * d, pair_bytes);
  return reply.take();
}

}  // namespace mneme
