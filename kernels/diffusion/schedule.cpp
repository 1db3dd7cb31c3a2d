// SPDX-License-Identifier: Apache-2.0
// What the parameters of diffusion_noise mean, timestep by timestep.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/core/error.h"
#include "kernels/diffusion/kernels.h"

namespace lockstep {

const char* name(Prediction p) {
  switch (p) {
    case Prediction::epsilon:
      return "epsilon";
    case Prediction::v_prediction:
      return "v_prediction";
    case Prediction::sample:
      return "sample";
  }
  return "?";
}

std::string DiffusionNoiseParams::text() const {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, by words
  for (double ac : alphas_cumprod) hash = (hash ^ std::bit_cast<uint64_t>(ac)) * 0x100000001b3;
  return fmt::format("timesteps={} schedule={:016x} prediction={} min_snr_gamma={}", alphas_cumprod.size(),
                     hash, name(prediction), min_snr_gamma);
}

namespace diffusion {

double loss_weight(const DiffusionNoiseParams& p, double ac) {
  if (p.min_snr_gamma <= 0) return 1;
  const double snr = ac < 1 ? ac / (1 - ac) : std::numeric_limits<double>::infinity();
  switch (p.prediction) {
    case Prediction::epsilon:
      return snr > p.min_snr_gamma ? p.min_snr_gamma / snr : 1;
    case Prediction::v_prediction:
      return std::min(snr, p.min_snr_gamma) / (snr + 1);
    case Prediction::sample:
      return std::min(snr, p.min_snr_gamma);
  }
  return 1;
}

std::vector<NoiseRow> noise_rows(const DiffusionNoiseParams& p) {
  LOCKSTEP_ASSERT(!p.alphas_cumprod.empty(), "no timesteps");
  std::vector<NoiseRow> rows;
  for (double ac : p.alphas_cumprod) {
    LOCKSTEP_ASSERT(ac >= 0 && ac <= 1, "alphas_cumprod is {}", ac);
    rows.push_back({static_cast<float>(std::sqrt(ac)), static_cast<float>(std::sqrt(1 - ac)),
                    static_cast<float>(loss_weight(p, ac))});
  }
  return rows;
}

}  // namespace diffusion
}  // namespace lockstep
