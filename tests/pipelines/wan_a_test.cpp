// The whole pipeline on a complete tiny checkpoint, against every stage that the reference pipeline stored.
#include "core/torch.h"
// After the precompiled header.
#include "core/error.h"
#include "models/model_folder.h"
#include "pipelines/latents_file.h"
#include "pipelines/pipeline.h"
#include "tests/support/compare.h"
#include "tests/support/temp_folder.h"
#include "video/video_reader.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe::pipelines {
namespace {

struct WanA : ::testing::Test {
  std::shared_ptr<const weights::TensorSource> reference =
      weights::open_safetensors(test::golden_path("wan_a/reference.safetensors"));
  std::shared_ptr<const weights::TensorSource> bisect =
      weights::open_safetensors(test::golden_path("wan_a/bisect.safetensors"));
  ConfigNode settings = weights::load_json(test::golden_path("wan_a/reference.json"));
  test::TempFolder folder;

  Pipeline pipeline() { return Pipeline(models::open_model_folder(test::golden_path("wan_a/checkpoint")), {}); }

  Request request(int prompt) {
    Request r;
    r.prompt = settings.at("prompts").as_list()[static_cast<size_t>(prompt)].as_string();
    r.negative_prompt = settings.at("negative_prompt").as_string();
    r.num_frames = 13, r.height = 64, r.width = 80, r.num_inference_steps = 5, r.guidance_scale = 5.0;
    r.seed = static_cast<uint64_t>(1001 + prompt);
    return r;
  }
};

TEST_F(WanA, reaches_every_stored_latent_and_frame_of_both_prompts) {
  Pipeline strobe = pipeline();
  for (int prompt = 0; prompt < 2; ++prompt) {
    const std::string p = fmt::format("p{}", prompt);
    Request r = request(prompt);
    r.save_frames = folder.path() / p;
    std::vector<at::Tensor> latents;
    Progress progress;
    progress.on_latents = [&](int, const at::Tensor& x) { latents.push_back(x.clone()); };
    const Result result = strobe.generate(resolve(r, strobe.info()), {}, progress);
    ASSERT_EQ(latents.size(), 5U);
    for (int step = 0; step < 4; ++step) {
      EXPECT_TRUE(test::matches(latents[static_cast<size_t>(step)],
                                reference->read(fmt::format("{}.step{:02}.latents", p, step)), {.relative_l2 = 5e-5}))
          << p << " step " << step;
    }
    EXPECT_TRUE(test::matches(result.latents, reference->read(p + ".final_latents"), {.relative_l2 = 5e-5}));
    EXPECT_EQ(result.forwards, 10);
    at::Tensor frames = video::read_all_frames((folder.path() / p).string() + "/");
    EXPECT_GE(test::psnr_db(frames, reference->read(p + ".frames_u8")), 70.0);
  }
}

TEST_F(WanA, heeds_an_interruption_inside_the_encoding_of_one_text) {
  Pipeline strobe = pipeline();
  int asked = 0, texts = 0;
  std::vector<std::string> stages;
  Progress progress;
  progress.on_stage = [&](const std::string& stage) { stages.push_back(stage); };
  progress.on_texts = [&](int64_t, int64_t) { ++texts; };
  progress.is_interrupted = [&] { return ++asked == 2; };  // before the second block
  EXPECT_THROW(strobe.generate(resolve(request(0), strobe.info()), {}, progress), InterruptedError);
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(texts, 0);
  EXPECT_EQ(stages, std::vector<std::string>{"text"});
}

TEST_F(WanA, draws_the_reference_start_noise_from_the_seed) {
  Pipeline strobe = pipeline();
  Request r = request(0);
  r.init_latents = folder.path() / "start.safetensors";
  save_latents(r.init_latents, reference->read("p0.init_latents"), {});
  at::Tensor from_file, from_seed;
  Progress progress;
  progress.on_latents = [&](int step, const at::Tensor& x) {
    if (step == 1) from_file = x.clone();
  };
  strobe.generate(resolve(r, strobe.info()), {}, progress);
  r.init_latents.clear();
  progress.on_latents = [&](int step, const at::Tensor& x) {
    if (step == 1) from_seed = x.clone();
  };
  strobe.generate(resolve(r, strobe.info()), {}, progress);
  EXPECT_TRUE(at::equal(from_file, from_seed));
}

TEST_F(WanA, passes_through_every_stored_intermediate_of_the_transformer) {
  Pipeline strobe = pipeline();
  std::map<std::string, at::Tensor> seen;
  Progress progress;
  progress.probe = [&](const std::string& name, const at::Tensor& tensor) { seen[name] = tensor.clone(); };
  strobe.generate(resolve(request(0), strobe.info()), {}, progress);
  int compared = 0;
  for (const weights::TensorInfo& info : bisect->tensors()) {
    if (!info.name.starts_with("dit.") || info.name.starts_with("dit.rope")) continue;
    std::string name = info.name.substr(4);
    at::Tensor expected = bisect->read(info.name);
    ASSERT_TRUE(seen.contains(name)) << name;
    at::Tensor actual = seen[name];
    if (name == "patch_embedding") expected = expected.flatten(2).transpose(1, 2);
    if (name == "time_sinusoid" || name == "temb" || name == "time_proj") actual = actual.squeeze(1);
    // 21 tokens of the prompt and one row that stands for the 491 of padding, which are equal.
    if (name == "text_embedder" || name == "block0.attn2.norm_k") expected = expected.narrow(1, 0, 22);
    if (name.ends_with("_rope")) expected = expected.flatten(2);
    EXPECT_TRUE(test::matches(actual, expected, {.relative_l2 = 1e-5})) << name;
    ++compared;
  }
  EXPECT_GE(compared, 20);
}

}  // namespace
}  // namespace strobe::pipelines
