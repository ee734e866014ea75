#include "model/expert_rows.h"

#include <algorithm>

#include "parallel/count_coder.h"

namespace mneme {
namespace {

constexpr uint64_t kMostMessageRows = 1 << 17;

void write_spikes(std::span<const int64_t> leaving, const SpikeRows& spikes, int64_t cols, MessageWriter& out,
                  CountTally& tally) {
  std::vector<int32_t> counts(leaving.size() * static_cast<size_t>(cols));
  for (size_t i = 0; i < leaving.size(); ++i) {
    out.value(spikes.threshold[static_cast<size_t>(leaving[i])]);
    spike_counts(spikes, leaving[i], cols, counts.data() + static_cast<int64_t>(i) * cols);
  }
  const size_t before = out.size();
  encode_counts(counts, out);
  tally.add(counts, out.size() - before);
}

void write_codes(std::span<const int64_t> leaving, const QuantizedRows& x, int64_t cols, MessageWriter& out) {
  const int64_t blocks = cols / kBlock;
  for (const int64_t row : leaving) {
    out.raw(x.q.data() + row * cols, static_cast<size_t>(cols));
    out.raw(x.d.data() + row * blocks, static_cast<size_t>(blocks) * sizeof(float));
  }
}

/// f(pair) for each pair of a row of a request.
template <class F>
void each_pair(const Routing& routing, int64_t row, int64_t top_k, const F& f) {
  for (int64_t place = row * top_k; place < (row + 1) * top_k; ++place)
    if (const int64_t pair = routing.place[static_cast<size_t>(place)]; pair >= 0) f(pair);
}

void read_floats(MessageReader& in, const RequestHead& head, const InputForms& forms, const Routing& routing,
                 int64_t top_k, int64_t cols, Activations& out) {
  std::vector<float> x(static_cast<size_t>(cols));
  for (int64_t row = 0; row < head.rows; ++row) {
    const auto bytes = in.raw(static_cast<uint64_t>(cols) * sizeof(float));
    std::memcpy(x.data(), bytes.data(), bytes.size());
    each_pair(routing, row, top_k, [&](int64_t pair) { prepare_row(forms, x.data(), pair, cols, out); });
  }
}

void read_codes(MessageReader& in, const RequestHead& head, const InputForms& forms, const Routing& routing,
                int64_t top_k, int64_t cols, Activations& out) {
  const auto blocks = static_cast<size_t>(cols / kBlock);
  std::vector<float> scales(blocks);
  for (int64_t row = 0; row < head.rows; ++row) {
    const auto codes = in.raw(static_cast<uint64_t>(cols));
    const auto bytes = in.raw(blocks * sizeof(float));
    std::memcpy(scales.data(), bytes.data(), bytes.size());
    each_pair(routing, row, top_k, [&](int64_t pair) {
      place_codes(reinterpret_cast<const int8_t*>(codes.data()), scales.data(), pair, cols, out.q);
      if (forms.rounded) codes_to_floats(out.q, pair, cols, out.rounded.data() + pair * cols);
    });
  }
}

void read_spikes(MessageReader& in, const RequestHead& head, const InputForms& forms, const Routing& routing,
                 int64_t top_k, int64_t cols, Activations& out) {
  const auto rows = static_cast<size_t>(head.rows);
  std::vector<int32_t> counts(rows * static_cast<size_t>(cols));
  std::vector<float> row_counts(static_cast<size_t>(cols)), thresholds(rows);
  for (size_t slot = 0; slot < forms.spikes.size(); ++slot) {
    for (float& threshold : thresholds) threshold = in.value<float>();
    decode_counts(in, counts);
    for (int64_t row = 0; row < head.rows; ++row) {
      std::transform(counts.begin() + row * cols, counts.begin() + (row + 1) * cols, row_counts.begin(),
                     [](int32_t count) { return static_cast<float>(count); });
      Activations::Spikes& spikes = out.spikes[slot];
      each_pair(routing, row, top_k, [&](int64_t pair) {
        place_spikes(row_counts.data(), thresholds[static_cast<size_t>(row)], pair, cols, spikes.rows);
        if (forms.spikes[slot].floats)
          spikes_to_floats(spikes.rows, pair, cols, spikes.f.data() + pair * cols);
      });
    }
  }
}

}  // namespace

InputForms expert_input_forms(const MoeWeights& moe) {
  InputForms forms;
  forms.add(moe.experts.front().gate);
  forms.add(moe.experts.front().up);
  return forms;
}

ExpertInputs expert_inputs(const InputForms& forms) {
  return {forms.floats || forms.int4, forms.int8 || forms.rounded, forms.spikes.size()};
}

void find_leaving(const Routing& routing, int64_t rows, int64_t top_k, const ExpertRange& experts,
                  LeavingRows& out) {
  out.rows.clear();
  out.requested = out.answered = 0;
  for (int64_t row = 0; row < rows; ++row) {
    bool leaves = false;
    each_route(routing, row, top_k, experts, [&](size_t) { leaves = true; });
    if (leaves) out.rows.push_back(row);
  }
}

MessageBytes write_request(size_t layer, RowCoding coding, std::span<const int64_t> leaving,
                           const Routing& routing, int64_t top_k, const ExpertRange& experts,
                           const Activations& coded, const float* floats, size_t neurons, int64_t cols,
                           ExpertGroup::Sent& sent) {
  MessageWriter out;
  out.varint(layer);
  out.value(static_cast<uint8_t>(coding));
  out.varint(leaving.size());
  for (const int64_t row : leaving) {
    uint64_t count = 0;
    each_route(routing, row, top_k, experts, [&](size_t) { ++count; });
    out.varint(count);
    sent.pairs += count;
    each_route(routing, row, top_k, experts, [&](size_t place) {
      out.varint(static_cast<uint64_t>(routing.routes[place].expert) - experts.first);
    });
  }
  const size_t head = out.size();
  switch (coding) {
    case RowCoding::floats:
      for (const int64_t row : leaving)
        out.raw(floats + row * cols, static_cast<size_t>(cols) * sizeof(float));
      break;
    case RowCoding::int8:
      write_codes(leaving, coded.q, cols, out);
      break;
    case RowCoding::spikes:
      for (size_t slot = 0; slot < neurons; ++slot)  // there may be more, of other layers
        write_spikes(leaving, coded.spikes[slot].rows, cols, out, sent.counts);
      break;
  }
  sent.layer = layer;
  sent.coding = coding;
  sent.rows = leaving.size();
  sent.cols = static_cast<uint64_t>(cols);
  sent.bytes = out.size();
  sent.row_bytes = out.size() - head;
  return out.take();
}

RequestHead read_request_head(MessageReader& in, const ModelImpl& model, Routing& routing) {
  RequestHead head;
  head.layer = in.varint(model.layers.size() - 1);
  const auto& moe = model.layers[head.layer].moe;
  require(moe.has_value(), ErrorCode::corrupt, "{}: layer {} has no experts", in.what(), head.layer);
  const FfnConfig& ffn = model.config.layers[head.layer].ffn;
  const auto coding = in.value<uint8_t>();
  require(coding <= static_cast<uint8_t>(RowCoding::spikes), ErrorCode::corrupt,
          "{}: rows in an unknown coding {}", in.what(), coding);
  head.coding = static_cast<RowCoding>(coding);
  head.rows = static_cast<int64_t>(in.varint(std::min<uint64_t>(kMostMessageRows, in.left())));
  routing.reserve(head.rows, ffn);
  for (int64_t row = 0; row < head.rows; ++row) {
    Route* routes = routing.routes.data() + row * ffn.top_k;
    std::fill_n(routes, ffn.top_k, Route());
    const uint64_t count = in.varint(std::min(ffn.top_k, moe->own.count()));
    require(count > 0, ErrorCode::corrupt, "{}: a row for no expert", in.what());
    for (uint64_t i = 0; i < count; ++i) {
      const auto expert = static_cast<int32_t>(moe->own.first + in.varint(moe->own.count() - 1));
      require(std::none_of(routes, routes + i, [&](const Route& route) { return route.expert == expert; }),
              ErrorCode::corrupt, "{}: expert {} twice for one row", in.what(), expert);
      routes[i] = {expert, 1.0f};
    }
  }
  return head;
}

void read_request_rows(MessageReader& in, const RequestHead& head, const InputForms& forms,
                       const Routing& routing, int64_t top_k, int64_t cols, Activations& out) {
  const ExpertInputs inputs = expert_inputs(forms);
  require(head.coding != RowCoding::int8 || choose_coding("auto", inputs, head.layer) == RowCoding::int8,
          ErrorCode::corrupt, "{}: int8 codes for experts that do not read them", in.what());
  require(head.coding != RowCoding::spikes || choose_coding("auto", inputs, head.layer) == RowCoding::spikes,
          ErrorCode::corrupt, "{}: spikes for experts that do not read them", in.what());
  switch (head.coding) {
    case RowCoding::floats:
      return read_floats(in, head, forms, routing, top_k, cols, out);
    case RowCoding::int8:
      return read_codes(in, head, forms, routing, top_k, cols, out);
    case RowCoding::spikes:
      return read_spikes(in, head, forms, routing, top_k, cols, out);
  }
}

}  // namespace mneme
