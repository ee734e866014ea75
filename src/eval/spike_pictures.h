// Pictures of spikes: a raster (time x neuron) and histograms, as SVG or PNG.
#pragma once
#include <span>
#include <string>

#include "eval/heat_map.h"
#include "eval/spike_report.h"

namespace mneme {

/// The spikes of a record in a code, time from left to right (for each token the steps of the code), the
/// first `neurons` inputs from top to bottom. Throws Error: invalid_argument (a negative count in an unsigned
/// code, nothing to draw), limit (more than 16,000 steps in all: fewer tokens, or a bitwise code).
std::string spike_raster(const SpikeRecord& record, SpikeCode code, int64_t neurons, PictureFormat format);

struct SpikePanel {
  std::string name;
  SpikeHistogram histogram;
};
/// How many spikes a neuron fires for a token in a code: a panel of bars for each histogram, 0 to 15 spikes
/// and more. Throws Error(invalid_argument) as spike_raster.
std::string spike_histograms(const std::string& title, std::span<const SpikePanel> panels, SpikeCode code,
                             PictureFormat format);

}  // namespace mneme
