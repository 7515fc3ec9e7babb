{
  "targets": [
    {
      "target_name": "llama_steer",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake_build",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["out/addon/always-run"],
          "action": ["node", "scripts/build-addon.mjs"]
        }
      ]
    }
  ]
}
