// A look at what projections read. While an observer is attached to a session, its passes walk a plan that
// has one more stage before each group of projections with the same input; without one, the plan has no trace
// of them.
//
// What is shown is the input in float, after norms and before any rounding: whatever an activation (float,
// int8, spike) then makes of it, and for any model.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/model_impl.h"

namespace mneme {

/// Which input of a layer.
enum class ProjectionInput { mixer, output, ffn, hidden };

/// A place where projections read.
struct ProbeSite {
  size_t layer = 0, branch = 0;  // branch: of a parallel mixer
  ProjectionInput input = ProjectionInput::mixer;
  int64_t width = 0;  // of the input
  struct Reader {
    std::string
        name;  // "q", "k", "v", "o", "gate", "up", "down"; others by their tensors; "1.q" in a second branch
    const Linear* linear;
  };
  std::vector<Reader> readers;
};

/// All sites of a model, in the order of a pass: for each layer the mixer's input, the output projection's,
/// that of gate and up, that of down. A mixture of experts has one site, the input of its experts, with those
/// of expert 0 and of the shared expert as readers: what goes into down is another row for every expert. The
/// index is what an observer is called with. Projections of Engram modules are not among them: they read rows
/// of a table.
std::vector<ProbeSite> probe_sites(const ModelImpl& model);

class ProjectionObserver {
 public:
  virtual ~ProjectionObserver() = default;
  /// The input x [width] of site number `site` for the token at `position` of its sequence (sink tokens of
  /// the model count). Called from the threads of a pass at once, each row and site once in a pass; `thread`
  /// is below Model::threads(). What it throws ends the pass and comes out of Session::append().
  virtual void see(size_t site, int thread, int64_t position, std::span<const float> x) = 0;
};

}  // namespace mneme
