// A pad to sign on, for who has a pointer and a script: fills the field `drawn` of its form.
"use strict";

const pad = document.getElementById("pad");
if (pad !== null) {
  const canvas = pad.querySelector("canvas");
  const drawn = pad.querySelector("input[name=drawn]");
  const typed = document.getElementById("signature");
  const pen = canvas.getContext("2d");
  let isDown = false;

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * canvas.width) / box.width,
      ((event.clientY - box.top) * canvas.height) / box.height,
    ];
  };

  const clear = () => {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    drawn.value = "";
    typed.required = true;
  };

  canvas.addEventListener("pointerdown", (event) => {
    isDown = true;
    canvas.setPointerCapture(event.pointerId);
    pen.lineWidth = 3;
    pen.lineCap = "round";
    pen.lineJoin = "round";
    pen.strokeStyle = "#111";
    pen.beginPath();
    pen.moveTo(...place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!isDown) return;
    pen.lineTo(...place(event));
    pen.stroke();
  });
  const lift = () => {
    if (!isDown) return;
    isDown = false;
    drawn.value = canvas.toDataURL("image/png");
    typed.required = false;
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  pad.querySelector("button").addEventListener("click", clear);
  clear();
  pad.hidden = false;
}
