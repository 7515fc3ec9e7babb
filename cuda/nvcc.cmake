# The CUDA language, for all folders, and how its kernels are compiled. A toolkit from NVIDIA's wheels
# serves as well as an installed one: give its nvcc as CMAKE_CUDA_COMPILER.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  # Code for each, and PTX from which a driver compiles for what comes later.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 100-real 120-real
    80-virtual 90-virtual)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)

# For every target with kernels.
function(llama_steer_nvcc_options name)
  set_target_properties(${name} PROPERTIES CUDA_RUNTIME_LIBRARY Static)
  target_include_directories(${name} SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_options(${name} PRIVATE
    # A result must not depend on what the compiler chose to contract: fused multiply-adds are explicit.
    $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false -Werror=all-warnings -Xptxas=-v -Xcompiler=-ffp-contract=off>
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Werror -ffp-contract=off>)
endfunction()
