// Draws a picture and, on a layer of its own, the contributions of the network's places to the logit.

const PLACES = 30; // on a side of the map
const INPUT = 256; // pixels on a side of the network's input
const MARGIN = 7.5; // input pixels beyond the middles of the outermost places
const LONGEST = 1024; // of a panel, in pixels
const ENLARGE_TO = 512; // small pictures, by a whole factor

const REAL = [0, 114, 178];
const FAKE = [213, 94, 0];

/** The panels: the whole picture and, where only a part of it was judged, that part. */
export async function draw(file, image, attribution) {
  // Browsers decode a picture upright, Chromium even when asked not to.
  const decoded = await createImageBitmap(file).catch(() => null);
  const size = [image.width, image.height];
  const [width, height] = image.exif_orientation > 4 ? size.toReversed() : size;
  const fits = decoded?.width === width && decoded?.height === height;
  const picture = fits ? decoded : null;
  const [map, largest] = paint(attribution.map);
  const whole = [0, 0, ...size];
  const unseen = picture ? '' : ' (this browser cannot show the file)';
  const view = (title, part) => panel(title, picture, size, part, attribution.judged, map, image.exif_orientation);
  const panels = [view(`The picture${unseen}`, whole)];
  if (attribution.judged.some((edge, i) => edge !== whole[i])) {
    panels.push(view('The part that was judged', attribution.judged));
  }
  decoded?.close();
  return { panels, largest };
}

/** The map as an image of a pixel a place, and its largest contribution. */
function paint(rows) {
  const values = rows.flat();
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const canvas = new OffscreenCanvas(PLACES, PLACES);
  const context = canvas.getContext('2d');
  const pixels = context.createImageData(PLACES, PLACES);
  values.forEach((value, i) => {
    const share = largest > 0 ? Math.abs(value) / largest : 0;
    pixels.data.set([...(value > 0 ? FAKE : REAL), Math.round(255 * share)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
  return [canvas, largest];
}

/** One view: the part `[x0, y0, x1, y1]` of the stored picture, upright, with the map on what was judged. */
function panel(title, picture, size, [x0, y0, x1, y1], judged, map, orientation) {
  const longest = Math.max(x1 - x0, y1 - y0);
  const zoom = longest > LONGEST ? LONGEST / longest : Math.max(1, Math.floor(ENLARGE_TO / longest));
  const [width, height] = [x1 - x0, y1 - y0].map((side) => Math.max(1, Math.round(side * zoom)));
  const [left, top, right, bottom] = judged.map((edge, i) => (edge - (i % 2 ? y0 : x0)) * zoom);
  const layer = (name, ground) => {
    const canvas = document.createElement('canvas');
    canvas.className = name;
    [canvas.width, canvas.height] = orientation > 4 ? [height, width] : [width, height];
    const context = canvas.getContext('2d');
    context.setTransform(...upright(orientation, width, height));
    context.imageSmoothingEnabled = zoom < 1 && ground;
    return [canvas, context];
  };

  const [below, ground] = layer('picture', true);
  if (picture) {
    // From upright back to stored pixels, from these to the panel's.
    const stored = new DOMMatrix(upright(orientation, ...size)).inverse();
    const shown = ground.getTransform().scale(width / (x1 - x0), height / (y1 - y0)).translate(-x0, -y0).multiply(stored);
    ground.save();
    ground.setTransform(shown);
    ground.drawImage(picture, 0, 0);
    ground.restore();
  } else {
    ground.fillStyle = '#808080';
    ground.fillRect(0, 0, width, height);
  }
  if (right - left < width || bottom - top < height) {
    // White in black is seen on any ground.
    for (const [colour, line] of [['#000', 5], ['#fff', 2]]) {
      ground.strokeStyle = colour;
      ground.lineWidth = line;
      ground.strokeRect(left, top, right - left, bottom - top);
    }
  }
  const [above, tint] = layer('map', false);
  const [across, down] = [(right - left) / INPUT, (bottom - top) / INPUT];
  const side = INPUT - 2 * MARGIN;
  tint.drawImage(map, left + MARGIN * across, top + MARGIN * down, side * across, side * down);

  const layers = document.createElement('div');
  layers.className = 'layers';
  layers.setAttribute('role', 'img');
  layers.title = title;
  layers.append(below, above);
  return layers;
}

/** The transform from stored to upright pixels for an EXIF orientation (TIFF 6.0, tag 274). */
function upright(orientation, width, height) {
  return {
    2: [-1, 0, 0, 1, width, 0],
    3: [-1, 0, 0, -1, width, height],
    4: [1, 0, 0, -1, 0, height],
    5: [0, 1, 1, 0, 0, 0],
    6: [0, 1, -1, 0, height, 0],
    7: [0, -1, -1, 0, height, width],
    8: [0, -1, 1, 0, 0, width],
  }[orientation] ?? [1, 0, 0, 1, 0, 0];
}
