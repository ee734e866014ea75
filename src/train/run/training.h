// Everything that a training step changes, in one place: what a checkpoint must hold besides the run's
// counters.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "memory/token_map.h"
#include "train/blocks/decoder.h"
#include "train/blocks/engram_ids.h"
#include "train/blocks/parameters.h"
#include "train/optimise/optimiser.h"
#include "train/optimise/row_optimiser.h"

namespace mneme::train {

/// Stays where it is: the decoder refers to the parameters.
struct Training {
  ModelConfig config;
  Parameters parameters;
  RowTables tables;                     // by their name in config.tables
  std::shared_ptr<const TokenMap> map;  // null if all tables hash raw ids
  TableIds ids;
  std::unique_ptr<Optimiser> optimiser;
  std::map<std::string, RowOptimiser> row_optimisers;  // one a table
  std::unique_ptr<Decoder> decoder;

  Training() = default;
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;
};

}  // namespace mneme::train
