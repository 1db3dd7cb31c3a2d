// SPDX-License-Identifier: Apache-2.0
// Reading and writing a net's config.json. What the nets compute is tests/models/text_to_image_test.cpp.
#include "launch/job/net_config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/core/error.h"
#include "tests/support/temporary_folder.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

class NetConfig : public ::testing::Test {
 protected:
  std::string write(const std::string& text) const {
    std::ofstream(path()) << text;
    return path();
  }
  std::string path() const { return folder_.path() + "/config.json"; }

  // {"key": value}, or more, is refused with this identifier; the message names the key and the file.
  template <class Read>
  void expect_refused(Read read, const std::string& text, const std::string& id,
                      const std::string& key) const {
    try {
      read(write(text));
      ADD_FAILURE() << "accepted " << text;
    } catch (const Error& e) {
      EXPECT_EQ(e.exit(), Exit::config) << e.what();
      EXPECT_EQ(e.id(), id) << e.what();
      EXPECT_NE(std::string(e.what()).find(key), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("config.json"), std::string::npos) << e.what();
    }
  }

 private:
  TestFolder folder_;
};

TEST_F(NetConfig, AutoencodersRoundTrip) {
  AutoencoderKlConfig config;
  config.in_channels = 1, config.out_channels = 2;
  config.down_block_types.assign(3, "DownEncoderBlock2D");
  config.up_block_types.assign(3, "UpDecoderBlock2D");
  config.block_out_channels = {8, 8, 16}, config.layers_per_block = 2;
  config.act_fn = "relu", config.latent_channels = 3, config.norm_num_groups = 4;
  config.sample_size = {512, 256}, config.scaling_factor = 0.5, config.mid_block_add_attention = false;
  EXPECT_EQ(config.scale(), 4);
  const json written = to_json(config);
  EXPECT_EQ(json(to_json(read_autoencoder_config(write(written.dump())))), written);
  const json defaults = to_json(AutoencoderKlConfig{});
  for (const auto& [key, value] : written.items())
    if (key[0] != '_') {
      EXPECT_NE(value, defaults.at(key)) << key << " is not tested";
    }
  EXPECT_EQ(read_autoencoder_config(write("{\"force_upcast\": true, \"shift_factor\": null}")).scaling_factor,
            0.18215);
}

TEST_F(NetConfig, AutoencodersThatCannotBeBuilt) {
  const auto refused = [&](const std::string& key, const std::string& value, const char* id = "E_VAE") {
    expect_refused(read_autoencoder_config, "{\"" + key + "\": " + value + "}", id, key);
  };
  refused("shift_factor", "0.1");
  refused("latents_mean", "[0, 0, 0, 0]");
  refused("use_quant_conv", "false");
  refused("use_post_quant_conv", "false");
  refused("norm_num_groups", "48");
  refused("block_out_channels", "[64, 64]");
  refused("down_block_types", "[\"AttnDownEncoderBlock2D\"]", "E_JOB_CHOICE");
  refused("scaling_factor", "0", "E_JOB_RANGE");
}

TEST_F(NetConfig, FilesThatAreNone) {
  const auto error_of = [&](const auto& read) {
    try {
      read(path());
    } catch (const Error& e) {
      return std::pair{e.exit(), e.id()};
    }
    return std::pair{Exit::ok, std::string()};
  };
  const auto expect_all = [&](Exit exit, const std::string& id) {
    const std::pair expected{exit, id};
    EXPECT_EQ(error_of(read_unet_config), expected);
    EXPECT_EQ(error_of(read_autoencoder_config), expected);
  };
  expect_all(Exit::no_input, "E_CONFIG_NONE");
  for (const char* text : {"", "{", "[1]", "\"text\"", "{\"a\": 1} {}"}) {
    write(text);
    expect_all(Exit::data, "E_CONFIG_JSON");
  }
}

}  // namespace
}  // namespace lockstep::testing
