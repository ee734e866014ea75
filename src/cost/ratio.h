// The published ratio of three sparsities, and where its terms come from.
//
//   R = alpha m/n + (1 - alpha) a k/M          1/R: the speed-up that it promises
//
//   alpha  share of the multiply-adds that is attention over positions, in the dense counterpart
//   m/n    part of the n positions that a token attends to
//   a      part of the inputs of projections that fire
//   k/M    part of the experts that a token wakes
//
// The dense counterpart of a model has, at the same context, full attention in the place of every mixer,
// computes every expert and every input. All four are counted from the model's shape, but a, which only a
// text can tell: it is measured (`mneme spikes`) or given. R counts multiply-adds only, and scales all that
// is not attention over positions by a k/M, although projections of attention and the head have no experts,
// and the head and whatever computes densely has no silent inputs. `counted` is what is left of it when each
// matrix is counted for itself. A recurrence counts as the positions whose attention would cost as many
// multiply-adds as its state, so m/n is above 1 at contexts shorter than that.
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "core/json.h"
#include "cost/work.h"

namespace mneme {

struct SparsityRatio {
  double alpha = 0, m_over_n = 1, a = 1, k_over_m = 1;
  double n = 0;  // positions
  double m() const { return m_over_n * n; }
  double r() const { return alpha * m_over_n + (1 - alpha) * a * k_over_m; }
  double speedup() const { return 1 / r(); }
};

struct CountedRatio {
  SparsityRatio formula;
  double macs = 1;   // of a token, over the dense counterpart's
  double bytes = 1;  // the same of bytes
};

/// Throws Error(invalid_argument) that names the first term that is not a number in [0, 1], or alpha and all
/// else 0, which would make R 0.
void check_ratio(const SparsityRatio& ratio);

/// The model with full attention in every mixer, all experts and all inputs at work.
ModelShape dense_counterpart(ModelShape shape);
/// Of one token at decode that sees `context` positions.
CountedRatio counted_ratio(const ModelShape& shape, KvType kv, uint64_t context);

/// What of a model's inputs fires, as `mneme spikes --json` measured it.
struct FiringReport {
  struct Projection {
    double active = 1;
    uint64_t inputs = 0, outputs = 0;
  };
  std::map<std::pair<size_t, std::string>, Projection> projections;  // of (layer, name)
  double mean = 1;      // over all projections, by their multiplications
  double popcount = 0;  // mean additions for one weight
};
/// Throws Error(corrupt) for anything but such a report.
FiringReport firing_report(const Json& json);

/// Sets the share of firing inputs: of every spiking projection to `active`, or to the report's, whose mean
/// stands for what it does not see (memory modules, hidden values of experts). Throws
/// Error(mismatch) if the report lacks a projection that spikes, or has it in another size.
void set_firing(ModelShape& shape, double active);
void set_firing(ModelShape& shape, const FiringReport& report);
/// Whether any matrix reads spikes.
bool fires(const ModelShape& shape);

/// How many experts tokens pass, as `mneme experts --json` counted it: with null experts or top-p fewer than
/// the config's top_k.
struct RoutingFigures {
  struct Layer {
    double active = 0;  // mean over tokens
    uint64_t experts = 0;
  };
  std::map<size_t, Layer> layers;  // the mixtures
};
/// Throws Error(corrupt) for anything but such a report.
RoutingFigures routing_figures(const Json& json);
/// Sets how many experts of each mixture a token uses. Throws Error(mismatch) if the report lacks one, or has
/// it with another number of experts, and Error(invalid_argument) for a model without.
void set_routing(ModelShape& shape, const RoutingFigures& routing);

}  // namespace mneme
