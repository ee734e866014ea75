// Rows of activations and what experts made of them, as messages between processes.
//
//   request   varint layer, byte coding, varint rows;
//             for each row: varint experts (1..top_k), then varint expert - first expert of the receiver, for
//             each; the rows
//               float   [rows, d_model] f32
//               int8    for each row its codes [d_model] int8 and scales [d_model / 32] f32
//               spike   for each neuron: thresholds [rows] f32, counts [rows, d_model] by count_coder.h
//   reply     [pairs, d_model] f32: for each row its experts in the order of the request
//
// Requests of a process are answered one by one, in their order.
#pragma once
#include <span>
#include <vector>

#include "model/expert_group.h"
#include "model/plan.h"
#include "model/stage_parts.h"
#include "parallel/message_io.h"

namespace mneme {

/// What the routed experts of a layer read.
InputForms expert_input_forms(const MoeWeights& moe);
ExpertInputs expert_inputs(const InputForms& forms);

/// f(place) for the places [row, top_k] of a row of Routing::routes whose expert is in the range.
template <class F>
void each_route(const Routing& routing, int64_t row, int64_t top_k, const ExpertRange& experts, const F& f) {
  for (int64_t place = row * top_k; place < (row + 1) * top_k; ++place)
    if (experts.holds(routing.routes[static_cast<size_t>(place)].expert)) f(static_cast<size_t>(place));
}

/// Finds the rows with a route among `experts`. `top_k` routes a row.
void find_leaving(const Routing& routing, int64_t rows, int64_t top_k, const ExpertRange& experts,
                  LeavingRows& out);

/// A request for some of the rows that leave, and what it is made of. `coded` holds the rows of the pass in
/// the forms of int8 and spike; `floats` [rows, cols] as they are; `neurons`: kinds of spikes that the
/// layer's experts read.
MessageBytes write_request(size_t layer, RowCoding coding, std::span<const int64_t> leaving,
                           const Routing& routing, int64_t top_k, const ExpertRange& experts,
                           const Activations& coded, const float* floats, size_t neurons, int64_t cols,
                           ExpertGroup::Sent& sent);

/// The first part of a request: the layer, the coding, and routes [rows, top_k], with weight 1, which go into
/// a Routing that is not sorted yet.
struct RequestHead {
  size_t layer = 0;
  RowCoding coding = RowCoding::floats;
  int64_t rows = 0;
};
/// Throws Error(corrupt) for anything that does not fit the model or this process's experts.
RequestHead read_request_head(MessageReader& in, const ModelImpl& model, Routing& routing);
/// The rows, put where their pairs are in `out` (sized for the pairs of `routing`, which is sorted).
void read_request_rows(MessageReader& in, const RequestHead& head, const InputForms& forms,
                       const Routing& routing, int64_t top_k, int64_t cols, Activations& out);

}  // namespace mneme
